import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Failure } from "@holdfast/shared/domain/failure";
import type { HostConnection } from "@holdfast/shared/ports/host";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createLocalHost } from "../../mover/transport/local-host.ts";
import { connectSsh, type SshAddress } from "../../mover/transport/ssh/connect-ssh.ts";
import { fetchHostKeys } from "../../mover/transport/ssh/fetch-host-keys.ts";
import { createTransports } from "../../mover/transport/transports.ts";

/** SSH against a real sshd of our own on a free port: pinned keys, logins, commands, forwarded NBD. Needs root. */
const folder = mkdtempSync(path.join(tmpdir(), "holdfast-ssh-"));
const at = (name: string): string => path.join(folder, name);
const user = `hf${process.pid}`;
const password = randomBytes(12).toString("hex");
const children: ChildProcess[] = [];

type Server = { readonly port: number };
let server: Server;
let interactive: Server;
let strict: Server;
let hostKeys: readonly string[] = [];
let privateKey = "";

beforeAll(async () => {
  mkdirSync("/run/sshd", { recursive: true });
  execFileSync("useradd", ["--create-home", "--shell", "/bin/sh", user]);
  execFileSync("chpasswd", { input: `${user}:${password}\n` });
  for (const type of ["ed25519", "ecdsa", "rsa"]) {
    execFileSync("ssh-keygen", ["-q", "-t", type, "-N", "", "-f", at(`host_${type}`)]);
  }
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", at("client")]);
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "a phrase", "-f", at("locked")]);
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", at("stranger")]);
  privateKey = readFileSync(at("client"), "utf8");
  const accepted = readFileSync(at("client.pub"), "utf8") + readFileSync(at("locked.pub"), "utf8");
  writeFileSync(at("authorized"), accepted, { mode: 0o600 });
  hostKeys = [readFileSync(at("host_ed25519.pub"), "utf8")];
  server = await startSshd(["UsePAM no", "PasswordAuthentication yes"]);
  interactive = await startSshd([
    "UsePAM yes",
    "PasswordAuthentication no",
    "KbdInteractiveAuthentication yes",
  ]);
  strict = await startSshd([
    "UsePAM no",
    "MaxSessions 2",
    "AllowStreamLocalForwarding no",
    "AllowTcpForwarding no",
  ]);
});

afterAll(() => {
  for (const child of children) child.kill("SIGKILL");
  execFileSync("userdel", ["--remove", "--force", user], { stdio: "ignore" });
  rmSync(folder, { recursive: true, force: true });
});

async function startSshd(lines: readonly string[]): Promise<Server> {
  const port = await freePort();
  const config = at(`sshd_config_${port}`);
  const common = [
    `Port ${port}`,
    "ListenAddress 127.0.0.1",
    `HostKey ${at("host_ed25519")}`,
    `HostKey ${at("host_ecdsa")}`,
    `HostKey ${at("host_rsa")}`,
    `AuthorizedKeysFile ${at("authorized")}`,
    `PidFile ${at(`pid_${port}`)}`,
    "PermitRootLogin yes",
    "StrictModes no",
    // A login shell's ~/.bashrc would otherwise run before every command.
    "SetEnv SHLVL=1",
  ];
  writeFileSync(config, `${[...common, ...lines].join("\n")}\n`);
  const child = spawn("/usr/sbin/sshd", ["-D", "-e", "-f", config], { stdio: "ignore" });
  children.push(child);
  await waitForPort(port);
  return { port };
}

async function freePort(): Promise<number> {
  const listener = net.createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => listener.once("listening", resolve));
  const address = listener.address();
  await new Promise((resolve) => listener.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

async function waitForPort(port: number): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const isOpen = await new Promise<boolean>((resolve) => {
      const socket = net.connect({ host: "127.0.0.1", port });
      socket.once("connect", () => {
        socket.destroy();
        resolve(true);
      });
      socket.once("error", () => resolve(false));
    });
    if (isOpen) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`nothing listens on port ${port}`);
}

const address = (change: Partial<SshAddress> = {}): SshAddress => ({
  kind: "ssh",
  host: "127.0.0.1",
  port: server.port,
  user: "root",
  hostKeys,
  login: { kind: "key", privateKey },
  ...change,
});

async function failureOf(work: Promise<unknown>): Promise<Failure> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toMatchObject({ name: "Failure" });
  return error as Failure;
}

describe("ssh login", () => {
  test("a pinned key and a key login give a connection", async () => {
    await using host = await connectSsh(address());
    const result = await host.run(["id", "-u"]);
    expect(result).toEqual({ exitCode: 0, stdout: "0\n", stderr: "" });
  });

  test("an RSA or ECDSA key may be the pinned one", async () => {
    for (const type of ["ecdsa", "rsa"]) {
      const pinned = [readFileSync(at(`host_${type}.pub`), "utf8")];
      await using host = await connectSsh(address({ hostKeys: pinned }));
      expect((await host.run(["true"])).exitCode).toBe(0);
    }
  });

  test("an unknown host key stops before the login and names the fingerprint", async () => {
    const presented = execFileSync("ssh-keygen", ["-lf", at("host_ecdsa.pub")], {
      encoding: "utf8",
    });
    const only = await startSshd(["UsePAM no", "HostKeyAlgorithms ecdsa-sha2-nistp256"]);
    const failure = await failureOf(connectSsh(address({ port: only.port })));
    expect(failure.code).toBe("host.key-unknown");
    expect(failure.message).toContain(presented.split(" ")[1]);
  });

  test("a changed host key stops before the login and names both fingerprints", async () => {
    const pinned = readFileSync(at("stranger.pub"), "utf8");
    const prints = [at("host_ed25519.pub"), at("stranger.pub")].map(
      (file) => execFileSync("ssh-keygen", ["-lf", file], { encoding: "utf8" }).split(" ")[1],
    );
    const failure = await failureOf(connectSsh(address({ hostKeys: [pinned] })));
    expect(failure.code).toBe("host.key-changed");
    for (const print of prints) expect(failure.message).toContain(print);
  });

  test("no pinned key at all accepts nothing", async () => {
    const failure = await failureOf(connectSsh(address({ hostKeys: [] })));
    expect(failure.code).toBe("host.key-unknown");
  });

  test("a key with a passphrase works with it and is refused without", async () => {
    const locked = readFileSync(at("locked"), "utf8");
    const login = { kind: "key", privateKey: locked, passphrase: "a phrase" } as const;
    await using host = await connectSsh(address({ login }));
    expect((await host.run(["true"])).exitCode).toBe(0);
    const without = connectSsh(address({ login: { kind: "key", privateKey: locked } }));
    expect((await failureOf(without)).code).toBe("host.login-refused");
    const wrong = connectSsh(address({ login: { ...login, passphrase: "another" } }));
    expect((await failureOf(wrong)).code).toBe("host.login-refused");
  });

  test("a foreign key and a wrong password are refused", async () => {
    const stranger = readFileSync(at("stranger"), "utf8");
    const byKey = connectSsh(address({ login: { kind: "key", privateKey: stranger } }));
    expect((await failureOf(byKey)).code).toBe("host.login-refused");
    const login = { kind: "password", password: "wrong" } as const;
    const failure = await failureOf(connectSsh(address({ user, login })));
    expect(failure.code).toBe("host.login-refused");
    expect(JSON.stringify(failure)).not.toContain("wrong");
  });

  test("a password works, also where the server asks for it interactively", async () => {
    for (const { port } of [server, interactive]) {
      const login = { kind: "password", password } as const;
      await using host = await connectSsh(address({ port, user, login }));
      expect((await host.run(["id", "-un"])).stdout).toBe(`${user}\n`);
    }
  });

  test("a port where nothing listens is unreachable; a silent one times out", async () => {
    const closed = await freePort();
    expect((await failureOf(connectSsh(address({ port: closed })))).code).toBe(
      "network.unreachable",
    );
    const silent = net.createServer(() => undefined).listen(0, "127.0.0.1");
    await new Promise((resolve) => silent.once("listening", resolve));
    const { port } = silent.address() as net.AddressInfo;
    const failure = await failureOf(connectSsh(address({ port }), { connectTimeoutMs: 300 }));
    expect(failure.code).toBe("network.timeout");
    silent.close();
  });

  test("a connection that is given up while it is made ends with the signal's reason", async () => {
    const reason = new Error("enough");
    const before = connectSsh(address(), { signal: AbortSignal.abort(reason) });
    await expect(before).rejects.toBe(reason);
    const silent = net.createServer(() => stop.abort(reason)).listen(0, "127.0.0.1");
    const stop = new AbortController();
    await new Promise((resolve) => silent.once("listening", resolve));
    const { port } = silent.address() as net.AddressInfo;
    await expect(connectSsh(address({ port }), { signal: stop.signal })).rejects.toBe(reason);
    silent.close();
  });

  test("fetchHostKeys gives every key of the server, as they can be pinned", async () => {
    const keys = await fetchHostKeys("127.0.0.1", server.port);
    expect(keys.map(({ type }) => type)).toEqual(["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"]);
    for (const [index, type] of ["ed25519", "ecdsa", "rsa"].entries()) {
      const file = at(`host_${type}.pub`);
      const print = execFileSync("ssh-keygen", ["-lf", file], { encoding: "utf8" }).split(" ")[1];
      expect(keys[index]?.fingerprint).toBe(print);
      expect(readFileSync(file, "utf8")).toContain(keys[index]?.key);
      await using host = await connectSsh(address({ hostKeys: [keys[index]?.key ?? ""] }));
      expect(host.name).toContain("ssh://root@127.0.0.1");
    }
    const nobody = await failureOf(fetchHostKeys("127.0.0.1", await freePort()));
    expect(nobody.code).toBe("network.unreachable");
  });
});

const hosts: readonly { readonly name: string; open(): Promise<HostConnection> }[] = [
  { name: "ssh", open: () => connectSsh(address()) },
  { name: "local", open: async () => createLocalHost() },
];

describe.each(hosts)("commands on a $name host", ({ open }) => {
  test("what fails is returned, with both outputs", async () => {
    await using host = await open();
    const result = await host.run(["sh", "-c", "echo out; echo err >&2; exit 7"]);
    expect(result).toEqual({ exitCode: 7, stdout: "out\n", stderr: "err\n" });
    expect((await host.run(["no-such-program-here"])).exitCode).toBe(127);
  });

  test("arguments, environment and input arrive unchanged", async () => {
    await using host = await open();
    const words = ["a b", "$HOME `id` \\ \"'", "*", "", "~", "-n", "ü\n\t!#", "a'b''c"];
    const print =
      'for x in "$@"; do printf "%s\\0" "$x"; done; printf %s "$VALUE"; printf %s "$LC_ALL"';
    const result = await host.run(["sh", "-c", print, "sh", ...words], {
      environment: { VALUE: "x'y $(id)" },
    });
    expect(result.stdout).toBe(`${words.map((word) => `${word}\0`).join("")}x'y $(id)C`);
    const input = randomBytes(300_000);
    const sum = await host.run(["sha256sum"], { input });
    const expected = execFileSync("sha256sum", { input, encoding: "utf8" });
    expect(sum.stdout).toBe(expected);
  });

  test("a command that does not read its input is no failure", async () => {
    await using host = await open();
    const result = await host.run(["true"], { input: randomBytes(4_000_000) });
    expect(result.exitCode).toBe(0);
  });

  test("death by signal is 128 and its number", async () => {
    await using host = await open();
    expect((await host.run(["sh", "-c", "kill -TERM $$"])).exitCode).toBe(143);
    expect((await host.run(["sh", "-c", "kill -9 $$"])).exitCode).toBe(137);
  });

  test("a command beyond its time is ended and killed", async () => {
    await using host = await open();
    const mark = `9${Date.now() % 1_000_000}${Math.floor(Math.random() * 1000)}`;
    const failure = await failureOf(host.run(["sleep", mark], { timeoutMs: 500 }));
    expect(failure.code).toBe("network.timeout");
    await expect
      .poll(async () => (await host.run(["pgrep", "-f", `^sleep ${mark}$`])).exitCode)
      .toBe(1);
  });

  test("the signal ends a command with its own reason", async () => {
    await using host = await open();
    const stop = new AbortController();
    const running = host.run(["sleep", "600"], { signal: stop.signal });
    const reason = new Error("enough");
    stop.abort(reason);
    await expect(running).rejects.toBe(reason);
  });

  test("nothing runs when the signal was given before", async () => {
    await using host = await open();
    const file = at(`touched-by-${host.name.length}`);
    const running = host.run(["touch", file], { signal: AbortSignal.abort(new Error("no")) });
    await expect(running).rejects.toThrow("no");
    expect((await host.run(["test", "-e", file])).exitCode).toBe(1);
  });

  test("output beyond its limit ends the command", async () => {
    await using host = await open();
    const failure = await failureOf(host.run(["yes"], { outputBytesMax: 100_000 }));
    expect(failure.code).toBe("host.output-invalid");
    expect((await host.run(["echo", "fine"])).stdout).toBe("fine\n");
  });

  test("forty commands at once all run", async () => {
    await using host = await open();
    const runs = Array.from({ length: 40 }, (_, index) => host.run(["echo", `${index}`]));
    const outputs = (await Promise.all(runs)).map(({ stdout }) => stdout.trim());
    expect(outputs).toEqual(Array.from({ length: 40 }, (_, index) => `${index}`));
  });

  test("a quick command's end is heard, also when it comes in one piece with its start", async () => {
    await using host = await open();
    for (let count = 0; count < 300; count++) {
      expect(await host.run(["true"])).toMatchObject({ exitCode: 0 });
    }
  });

  test("sockets of the host can be opened; missing ones are unreachable", async () => {
    await using host = await open();
    const echo = net
      .createServer((socket) => socket.pipe(socket))
      .listen(at(`echo-${host.name.length}`));
    const echoTcp = net.createServer((socket) => socket.pipe(socket)).listen(0, "127.0.0.1");
    await new Promise((resolve) => echoTcp.once("listening", resolve));
    const { port } = echoTcp.address() as net.AddressInfo;
    const streams = [
      await host.openUnixSocket(at(`echo-${host.name.length}`)),
      await host.openTcpSocket({ host: "127.0.0.1", port }),
    ];
    for (const stream of streams) {
      stream.write("hello");
      const [chunk] = await new Promise<[Buffer]>((resolve) =>
        stream.once("data", (data) => resolve([data])),
      );
      expect(chunk.toString()).toBe("hello");
      stream.destroy();
    }
    echo.close();
    echoTcp.close();
    const missing = await failureOf(host.openUnixSocket(at("nothing")));
    expect(missing.code).toBe("network.unreachable");
    const nobody = host.openTcpSocket({ host: "127.0.0.1", port: await freePort() });
    expect((await failureOf(nobody)).code).toBe("network.unreachable");
  });
});

describe("ssh connections", () => {
  test("a server that allows few sessions is asked again", async () => {
    await using host = await connectSsh(address({ port: strict.port }));
    const runs = Array.from({ length: 12 }, () => host.run(["true"]));
    for (const { exitCode } of await Promise.all(runs)) expect(exitCode).toBe(0);
  });

  test("a server that forbids forwarding says so", async () => {
    await using host = await connectSsh(address({ port: strict.port }));
    const failure = await failureOf(host.openUnixSocket(at("any")));
    expect(failure.message).toContain("AllowStreamLocalForwarding");
    const tcp = await failureOf(host.openTcpSocket({ host: "127.0.0.1", port: 1 }));
    expect(tcp.message).toContain("AllowTcpForwarding");
  });

  test("a connection that breaks fails what runs, and everything after", async () => {
    const host = await connectSsh(address());
    const running = failureOf(host.run(["sleep", "600"]));
    const shell = await host.run(["sh", "-c", "echo $PPID"]);
    process.kill(Number(shell.stdout), "SIGKILL");
    expect((await running).code).toBe("network.unreachable");
    expect((await failureOf(host.run(["true"]))).code).toBe("network.unreachable");
    expect((await failureOf(host.openUnixSocket("/x"))).code).toBe("network.unreachable");
    await host[Symbol.asyncDispose]();
  });

  test("a peer that stops answering is found by keep-alive", async () => {
    const proxy = await startProxy(server.port);
    const host = await connectSsh(address({ port: proxy.port }), { keepAliveMs: 100 });
    expect((await host.run(["true"])).exitCode).toBe(0);
    proxy.freeze();
    expect((await failureOf(host.run(["true"]))).code).toBe("network.timeout");
    await host[Symbol.asyncDispose]();
    proxy.close();
  });

  test("an NBD export behind a socket of the host is read through SSH", async () => {
    const image = randomBytes(5_000_192);
    writeFileSync(at("disk.raw"), image);
    const child = spawn("qemu-nbd", ["-r", "-f", "raw", "-k", at("disk.sock"), at("disk.raw")]);
    children.push(child);
    const transports = createTransports();
    await using host = await transports.connectHost(address());
    await expect
      .poll(() => host.run(["test", "-S", at("disk.sock")]))
      .toMatchObject({ exitCode: 0 });
    await using reader = await transports.openNbd(
      { kind: "unix", path: at("disk.sock"), via: host },
      { exportName: "", extents: { by: "allocation" } },
    );
    const bytes = Buffer.alloc(image.length);
    await Promise.all([
      reader.read(0, bytes.subarray(0, 3_000_000)),
      reader.read(3_000_000, bytes.subarray(3_000_000)),
    ]);
    expect(bytes.equals(image)).toBe(true);
  });
});

async function startProxy(target: number) {
  const pairs: net.Socket[] = [];
  const listener = net
    .createServer((near) => {
      const far = net.connect({ host: "127.0.0.1", port: target });
      for (const socket of [near, far]) socket.on("error", () => undefined);
      near.pipe(far);
      far.pipe(near);
      pairs.push(near, far);
    })
    .listen(0, "127.0.0.1");
  await new Promise((resolve) => listener.once("listening", resolve));
  return {
    port: (listener.address() as net.AddressInfo).port,
    freeze(): void {
      for (const socket of pairs) {
        socket.unpipe();
        socket.pause();
      }
    },
    close(): void {
      for (const socket of pairs) socket.destroy();
      listener.close();
    },
  };
}
