// How a socket ends and what it keeps: node sockets.test.mjs <the compiled index.js>

import assert from "node:assert/strict";
import test from "node:test";
import { pathToFileURL } from "node:url";

const { SocketClosed, TypedSocket } = await import(pathToFileURL(process.argv[2]).href);

class Wire extends EventTarget {
  closedWith = [];

  say(event) {
    this.dispatchEvent(Object.assign(new Event("message"), { data: JSON.stringify({ event }) }));
  }

  end(code, reason = "") {
    this.dispatchEvent(Object.assign(new Event("close"), { code, reason }));
  }

  close(code) {
    this.closedWith.push(code);
  }
}

async function readInto(names, socket) {
  for await (const { event } of socket.events()) names.push(event);
}

test("what came before the loop is not lost", async () => {
  const wire = new Wire();
  const socket = new TypedSocket(wire);
  wire.say("session_initialized");
  wire.say("candle");
  wire.end(1000);
  const names = [];

  await readInto(names, socket);

  assert.deepEqual(names, ["session_initialized", "candle"]);
});

test("a loop that waits is woken by an event and by the end", async () => {
  const wire = new Wire();
  const names = [];
  const reading = readInto(names, new TypedSocket(wire));

  for (const name of ["candle", "session_completed"]) {
    await new Promise(setImmediate);
    wire.say(name);
  }
  await new Promise(setImmediate);
  wire.end(1000);
  await reading;

  assert.deepEqual(names, ["candle", "session_completed"]);
});

for (const code of [1005, 1006, 1012, 4001]) {
  test(`a close with ${code} throws after what came before it`, async () => {
    const wire = new Wire();
    const socket = new TypedSocket(wire);
    wire.say("candle");
    wire.end(code, "why");
    const names = [];

    await assert.rejects(
      readInto(names, socket),
      (e) => e instanceof SocketClosed && e.code === code && e.message.endsWith(`${code}: why`),
    );

    assert.deepEqual(names, ["candle"]);
  });
}

test("leaving the loop closes the socket", async () => {
  const wire = new Wire();
  const socket = new TypedSocket(wire);
  wire.say("candle");

  for await (const _ of socket.events()) break;

  assert.deepEqual(wire.closedWith, [1000]);
});
