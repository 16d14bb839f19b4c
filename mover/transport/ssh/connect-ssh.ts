import { setTimeout as sleep } from "node:timers/promises";
import { asFailure, Failure } from "@holdfast/shared/domain/failure";
import type { HostConnection } from "@holdfast/shared/ports/host";
import type { HostAddress } from "@holdfast/shared/ports/transport";
import ssh2, { type ClientChannel, type ConnectConfig } from "ssh2";
import { startDeadline } from "../deadline.ts";
import { createSlots } from "../slots.ts";
import { ciphers, orderHostKeyAlgorithms } from "./algorithms.ts";
import { judgeHostKey, parseHostKey } from "./host-key.ts";
import { runOverChannel } from "./run-over-channel.ts";

/**
 * A machine over SSH. The host's key must be one of the pinned ones before anything secret is sent; every command goes
 * through `quoteCommand`; a peer that is gone is noticed within half a minute, and everything then fails with the cause.
 */
export type SshAddress = Extract<HostAddress, { kind: "ssh" }>;

export type SshOptions = {
  readonly signal?: AbortSignal;
  /** For connecting and logging in; default 20 000. */
  readonly connectTimeoutMs?: number;
  /** Keep-alive: three unanswered in a row end the connection; default 10 000. */
  readonly keepAliveMs?: number;
};

/** OpenSSH allows 10 sessions on a connection; two are left for others. */
const sessionsMax = 8;
const openAttemptsMax = 6;
const openRetryDelayMs = 100;
const commandTimeoutMsDefault = 60_000;
const socketTimeoutMs = 30_000;

export async function connectSsh(
  address: SshAddress,
  options: SshOptions = {},
): Promise<HostConnection> {
  const name = `ssh://${address.user}@${address.host}:${address.port}`;
  const { client, lost } = await logIn(address, name, options);
  const sessions = createSlots(sessionsMax);

  const whyLost = (): Failure =>
    lost.cause ?? new Failure("network.unreachable", { message: `${name} closed the connection` });

  function openChannel(
    open: (done: ChannelCallback) => void,
    what: string,
  ): Promise<ClientChannel> {
    return new Promise((resolve, reject) => {
      const fail = (cause: unknown): void => {
        if (lost.isLost) reject(whyLost());
        else reject(asFailure(cause, "network.unreachable", `${name} cannot open ${what}`));
      };
      if (lost.isLost) {
        fail(undefined);
        return;
      }
      lost.listeners.add(fail);
      try {
        open((error, channel) => {
          lost.listeners.delete(fail);
          if (error !== undefined) fail(error);
          else resolve(channel);
        });
      } catch (error) {
        lost.listeners.delete(fail);
        fail(error);
      }
    });
  }

  let sessionsOpen = 0;
  let sessionEnded = Promise.withResolvers<void>();

  /** A server that limits sessions refuses while others still run: those of ours are waited for, others a little. */
  async function openSession(
    line: string,
    isOver: () => boolean,
    onOpen: (channel: ClientChannel) => void = () => undefined,
  ): Promise<ClientChannel> {
    for (let attempt = 1; ; ) {
      try {
        const channel = await openChannel((done) => {
          client.exec(line, (error, opened) => {
            if (error === undefined) onOpen(opened);
            done(error, opened);
          });
        }, "a session");
        sessionsOpen += 1;
        channel.once("close", () => {
          sessionsOpen -= 1;
          sessionEnded.resolve();
          sessionEnded = Promise.withResolvers();
        });
        return channel;
      } catch (error) {
        // Nobody waits any more: to run the command now would be wrong.
        if (lost.isLost || attempt >= openAttemptsMax || isOver()) throw error;
        const retry = sleep(openRetryDelayMs * 2 ** (attempt - 1));
        if (sessionsOpen === 0) attempt += 1;
        await Promise.race([sessionEnded.promise, retry]);
        if (isOver()) throw error;
      }
    }
  }

  async function openSocket(
    open: (done: ChannelCallback) => void,
    what: string,
    signal: AbortSignal | undefined,
  ): Promise<ClientChannel> {
    const deadline = startDeadline({ timeoutMs: socketTimeoutMs, signal, what: `opening ${what}` });
    try {
      return await deadline.race(openChannel(open, what), (late) => late.destroy());
    } finally {
      deadline.close();
    }
  }

  return {
    name,
    run: (command, run = {}) =>
      sessions.run(() =>
        runOverChannel({
          command,
          options: { timeoutMs: commandTimeoutMsDefault, ...run },
          hostName: name,
          open: openSession,
          whyLost,
        }),
      ),
    openUnixSocket: (path, call) =>
      openSocket(
        (done) => client.openssh_forwardOutStreamLocal(path, done),
        `the Unix socket ${path} (it must exist, and sshd must allow AllowStreamLocalForwarding)`,
        call?.signal,
      ),
    openTcpSocket: ({ host, port }, call) =>
      openSocket(
        (done) => client.forwardOut("127.0.0.1", 0, host, port, done),
        `a connection to ${host}:${port} (it must listen, and sshd must allow AllowTcpForwarding)`,
        call?.signal,
      ),
    async [Symbol.asyncDispose]() {
      if (lost.isLost) return;
      const closed = new Promise((resolve) => lost.listeners.add(resolve));
      client.end();
      const timer = setTimeout(() => client.destroy(), 2000);
      await closed;
      clearTimeout(timer);
    },
  };
}

type ChannelCallback = (error: Error | undefined, channel: ClientChannel) => void;
type Lost = {
  isLost: boolean;
  cause: Failure | undefined;
  readonly listeners: Set<(cause: unknown) => void>;
};

function logIn(
  address: SshAddress,
  name: string,
  options: SshOptions,
): Promise<{ readonly client: ssh2.Client; readonly lost: Lost }> {
  const client = new ssh2.Client();
  const lost: Lost = { isLost: false, cause: undefined, listeners: new Set() };
  let keyFailure: Failure | undefined;
  const pinned = address.hostKeys.map(parseHostKey);
  const config: ConnectConfig = {
    host: address.host,
    port: address.port,
    username: address.user,
    readyTimeout: options.connectTimeoutMs ?? 20_000,
    keepaliveInterval: options.keepAliveMs ?? 10_000,
    keepaliveCountMax: 3,
    strictVendor: false,
    algorithms: {
      cipher: ciphers,
      serverHostKey: orderHostKeyAlgorithms(pinned.map(({ type }) => type)),
      compress: ["none"],
    },
    hostVerifier: (presented: Buffer) => {
      keyFailure = judgeHostKey({ presented, pinned, host: `${address.host}:${address.port}` });
      return keyFailure === undefined;
    },
    ...loginConfig(address),
  };
  const { signal } = options;
  const ready = Promise.withResolvers<{ readonly client: ssh2.Client; readonly lost: Lost }>();
  const { reject } = ready;
  const onAbort = (): void => {
    client.destroy();
    reject(signal?.reason);
  };
  client.on("error", (error: Error & { level?: string }) => {
    lost.cause ??= keyFailure ?? connectFailure(error, name);
    reject(lost.cause);
  });
  client.on("close", () => {
    lost.isLost = true;
    const message = `${name} closed the connection`;
    reject(keyFailure ?? lost.cause ?? new Failure("network.unreachable", { message }));
    for (const listener of [...lost.listeners]) listener(lost.cause);
    lost.listeners.clear();
  });
  client.on("ready", () => {
    client.setNoDelay(true);
    ready.resolve({ client, lost });
  });
  client.on("keyboard-interactive", (_name, _instructions, _language, prompts, answer) => {
    const { login } = address;
    const password = login.kind === "password" ? login.password : "";
    answer(prompts.map(({ echo }) => (echo === true ? "" : password)));
  });
  if (signal?.aborted === true) onAbort();
  else {
    signal?.addEventListener("abort", onAbort, { once: true });
    client.connect(config);
  }
  return ready.promise.finally(() => signal?.removeEventListener("abort", onAbort));
}

/** What is sent to prove who we are; a key that cannot be read is found before connecting. */
function loginConfig({ login }: SshAddress): ConnectConfig {
  if (login.kind === "password") {
    return {
      password: login.password,
      tryKeyboard: true,
      authHandler: ["none", "password", "keyboard-interactive"],
    };
  }
  const key = ssh2.utils.parseKey(login.privateKey, login.passphrase);
  if (key instanceof Error) {
    // Only the library's own words: they never quote the key.
    throw new Failure("host.login-refused", {
      message: `the private key cannot be used: ${key.message}`,
    });
  }
  return {
    privateKey: login.privateKey,
    ...(login.passphrase === undefined ? {} : { passphrase: login.passphrase }),
    authHandler: ["none", "publickey"],
  };
}

function connectFailure(error: Error & { level?: string }, name: string): Failure {
  const { level, message } = error;
  if (level === "client-authentication") {
    return new Failure("host.login-refused", {
      message: `${name} refused the login`,
      cause: error,
    });
  }
  if (level === "client-timeout") {
    return new Failure("network.timeout", { message: `${name}: ${message}`, cause: error });
  }
  if (level === "handshake" && message.includes("no matching")) {
    return new Failure("unsupported", { message: `${name}: ${message}`, cause: error });
  }
  return new Failure("network.unreachable", { message: `${name}: ${message}`, cause: error });
}
