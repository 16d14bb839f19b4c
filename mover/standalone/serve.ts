import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Serving } from "@holdfast/shared/contracts/standalone";
import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { Repository } from "@holdfast/shared/repository/repository";
import { standaloneHolder, withReadSession } from "../hold-session.ts";
import type { ListenAddress, ServerTls } from "../serve/nbd-server.ts";
import { servePoint } from "../serve/serve-point.ts";
import { chooseDisk, findRoot } from "./find-point.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

/** Damage is told so often; a client that reads on over a damaged disk would fill the terminal. */
const warningsMax = 20;

/** Serves a point's disks over NBD until the request is stopped, which is its good end. */
export async function serve(
  context: StandaloneContext,
  request: Request<"point-serve">,
): Promise<unknown> {
  const repository = await context.open(request);
  const rootKey = await findRoot(context, repository, request.pointId);
  return await withReadSession(
    {
      ...context,
      repository,
      kind: "restore",
      holder: standaloneHolder(),
      pins: [rootKey],
      onNoSession: (message) => context.emit({ type: "warning", message }),
    },
    (_, signal) => serveUntilStopped({ ...context, signal }, request, repository, rootKey),
  );
}

async function serveUntilStopped(
  context: StandaloneContext,
  request: Request<"point-serve">,
  repository: Repository,
  rootKey: string,
): Promise<unknown> {
  const { signal, logger, clock } = context;
  const startedMs = clock.now();
  const point = await repository.readSummary(rootKey, { signal });
  const disks = request.disk === undefined ? point.disks : [chooseDisk(point, request.disk)];
  const tls = request.tlsFolder === undefined ? undefined : await readTls(request.tlsFolder);
  await using socket = request.listen === undefined ? await newSocketFolder() : undefined;
  const listen: ListenAddress = request.listen ?? { kind: "unix", path: socket?.path ?? "" };
  let warnings = 0;
  await using server = await servePoint({
    repository,
    pointId: point.pointId,
    vmName: point.vmName,
    disks,
    listen,
    tls,
    cacheBytes: request.cacheBytes,
    logger,
    onDamage: (message) => {
      warnings += 1;
      if (warnings <= warningsMax) context.emit({ type: "warning", message });
    },
  });
  const { address } = server;
  const serving: Serving = {
    pointId: point.pointId,
    name: point.vmName,
    ...(address.kind === "unix" ? { socket: address.path } : {}),
    exports: disks.map(({ key, sizeBytes }) => ({
      disk: key,
      sizeBytes,
      uri: uriOf(address, key, tls !== undefined),
    })),
  };
  context.emit({ type: "serving", serving });
  await aborted(signal);
  // Its session was taken for dead: what it reads may be removed.
  if (isFailure(signal.reason, "session.ended")) throw signal.reason;
  const seconds = (clock.now() - startedMs) / 1000;
  return { pointId: point.pointId, ...server.served, seconds };
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

/** As the NBD project's doc/uri.md has it. */
function uriOf(address: ListenAddress, name: string, isTls: boolean): string {
  const path = encodeURIComponent(name);
  if (address.kind === "unix") {
    return `nbd+unix:///${path}?socket=${encodeURIComponent(address.path).replaceAll("%2F", "/")}`;
  }
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  return `${isTls ? "nbds" : "nbd"}://${host}:${address.port}/${path}`;
}

/** A folder that only this user can enter. */
async function newSocketFolder() {
  const folder = await mkdtemp(join(process.env["XDG_RUNTIME_DIR"] ?? tmpdir(), "holdfast-serve-"));
  return {
    path: join(folder, "nbd.sock"),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}

/** Files are named as QEMU and nbdkit name them. */
async function readTls(folder: string): Promise<ServerTls> {
  const read = async (name: string): Promise<string> => {
    try {
      return await readFile(join(folder, name), "utf8");
    } catch (cause) {
      throw new Failure("input.invalid", {
        message: `--tls: ${join(folder, name)} cannot be read: ${String(cause)}`,
        cause,
      });
    }
  };
  return {
    ca: await read("ca-cert.pem"),
    certificate: await read("server-cert.pem"),
    privateKey: await read("server-key.pem"),
  };
}
