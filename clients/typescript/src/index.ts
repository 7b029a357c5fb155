// The REST calls of the AlphaLab API, and its sockets, typed by the server's own documents.

import createFetchClient, { type Client } from "openapi-fetch";
import type { components as Rest, paths } from "./rest.ts";
import type { components as Sockets } from "./sockets.ts";

export type RestSchemas = Rest["schemas"];
export type SocketSchemas = Sockets["schemas"];

/** What each kind of socket sends: `event` tells which, and narrows `data`. */
export interface SocketEvents {
  backtest: SocketSchemas["BacktestSocketEvent"];
  forward: SocketSchemas["ForwardSocketEvent"];
  prices: SocketSchemas["PricesSocketEvent"];
}

/** What each kind of socket takes. */
export interface SocketActions {
  backtest: SocketSchemas["BacktestSocketAction"];
  forward: SocketSchemas["ForwardSocketAction"];
  prices: SocketSchemas["PricesSocketAction"];
}

export type SocketKind = keyof SocketEvents;

/** Gives a session token; it is asked before each call, for tokens are short-lived. */
export type TokenSource = () => string | Promise<string>;

/** The REST calls, under `baseUrl`, in the name of whom the token is. */
export function createClient(baseUrl: string, token: TokenSource): Client<paths> {
  const client = createFetchClient<paths>({ baseUrl });
  client.use({
    async onRequest({ request }) {
      request.headers.set("Authorization", `Bearer ${await token()}`);
      return request;
    },
  });
  return client;
}

export interface FollowOptions {
  /** The session's token; sockets of prices need none. */
  token?: string;
  /** The number of the last event that is known; 0 for everything. */
  lastSeq?: number;
}

/** The close code of a session that is over. */
const OVER = 1000;

/** The socket was refused, which is code 1006, or closed before its session was over. */
export class SocketClosed extends Error {
  readonly code: number;

  constructor({ code, reason }: CloseEvent) {
    super(`The socket closed with ${code}${reason && `: ${reason}`}`);
    this.name = "SocketClosed";
    this.code = code;
  }
}

/** A socket whose messages are typed; it keeps them from the first one until they are read. */
export class TypedSocket<Kind extends SocketKind> {
  readonly socket: WebSocket;
  #waiting: SocketEvents[Kind][] = [];
  #closed: CloseEvent | undefined;
  #wake = () => {};

  constructor(socket: WebSocket) {
    this.socket = socket;
    socket.addEventListener("message", ({ data }) => {
      this.#waiting.push(JSON.parse(String(data)) as SocketEvents[Kind]);
      this.#wake();
    });
    socket.addEventListener("close", (event) => {
      this.#closed = event;
      this.#wake();
    });
  }

  send(action: SocketActions[Kind]): void {
    this.socket.send(JSON.stringify(action));
  }

  /**
   * Every event until the session is over, for one loop; leaving the loop closes the socket.
   * Throws SocketClosed, after the events that came before, where the socket closes otherwise.
   */
  async *events(): AsyncGenerator<SocketEvents[Kind], void> {
    try {
      while (true) {
        const event = this.#waiting.shift();
        if (event !== undefined) yield event;
        else if (this.#closed === undefined)
          await new Promise<void>((resolve) => (this.#wake = resolve));
        else if (this.#closed.code === OVER) return;
        else throw new SocketClosed(this.#closed);
      }
    } finally {
      this.socket.close(OVER);
    }
  }
}

/** Open the socket of a backtest, of a forward test, or of an asset's prices. */
export function follow<Kind extends SocketKind>(
  baseUrl: string,
  kind: Kind,
  id: string,
  { token, lastSeq }: FollowOptions = {},
): TypedSocket<Kind> {
  const url = new URL(`/ws/${kind}/${encodeURIComponent(id)}`, baseUrl.replace(/^http/, "ws"));
  if (lastSeq !== undefined) url.searchParams.set("last_seq", String(lastSeq));
  // As a subprotocol the token stays out of access logs.
  const protocols = token === undefined ? [] : ["alphalab", token];
  return new TypedSocket(new WebSocket(url, protocols));
}
