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

/** A socket whose messages are typed. */
export class TypedSocket<Kind extends SocketKind> {
  constructor(readonly socket: WebSocket) {}

  send(action: SocketActions[Kind]): void {
    this.socket.send(JSON.stringify(action));
  }

  /** Every event until the socket closes; leaving the loop closes it. */
  async *events(): AsyncGenerator<SocketEvents[Kind], void> {
    const waiting: SocketEvents[Kind][] = [];
    let closed = false;
    let wake = () => {};
    this.socket.addEventListener("message", ({ data }) => {
      waiting.push(JSON.parse(String(data)) as SocketEvents[Kind]);
      wake();
    });
    this.socket.addEventListener("close", () => {
      closed = true;
      wake();
    });
    try {
      while (true) {
        const event = waiting.shift();
        if (event !== undefined) yield event;
        else if (closed) return;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      this.socket.close();
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
