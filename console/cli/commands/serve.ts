import { resolve } from "node:path";
import type { Serving, StandaloneRequest } from "@holdfast/shared/contracts/standalone";
import { Failure } from "@holdfast/shared/domain/failure";
import type { CommandDefinition } from "../command.ts";
import type { Context } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { parseBytes, parseWholeNumber } from "../parse-values.ts";
import { readPassphrase } from "../read-secret.ts";
import { formatBytes, formatDuration, printable } from "../render/format.ts";
import { note } from "../report.ts";
import { repositoryUrl } from "../repository-url.ts";
import { limitOptions, readLimits } from "./limits.ts";

const mib = 1024 ** 2;

export const serveCommand: CommandDefinition = {
  path: "serve",
  summary: "serve a recovery point's disks as read-only NBD exports, until Ctrl-C",
  description:
    "Each disk is an export by its key. Every chunk is verified before a byte of it is served; a damaged one is an input/output error " +
    "to the client and named here. By default at a Unix socket that only this user can open. A virtual machine can boot from a " +
    "writable overlay: qemu-img create -f qcow2 -F raw -b URI overlay.qcow2",
  arguments: [{ name: "point", summary: "id of the recovery point" }],
  options: [
    { flags: "--repository <url>", summary: "a directory or s3://bucket/prefix", required: true },
    {
      flags: "--passphrase-file <file>",
      summary: "file with the passphrase (else HOLDFAST_PASSPHRASE, else a question)",
    },
    { flags: "--disk <disk>", summary: "this disk only, by its key or number from 0" },
    { flags: "--socket <path>", summary: "Unix socket to make (default: in a new private folder)" },
    {
      flags: "--listen <address>",
      summary:
        "IP:PORT instead of a socket, port 0 for any; beyond this machine only with --tls. All users of this machine can connect",
    },
    {
      flags: "--tls <folder>",
      summary:
        "TLS with client certificates, by ca-cert.pem, server-cert.pem and server-key.pem in the folder",
    },
    { flags: "--cache <size>", summary: "memory for opened chunks (default 256M)" },
    ...limitOptions,
  ],
  examples: [
    {
      command: "holdfast serve 0mhq3z5k1-4t7v2c9x8b1d --repository /srv/backup",
      explanation:
        "Prints a URI for each disk, for qemu-img, nbdcopy, nbdfuse or a virtual machine.",
    },
    {
      command:
        "holdfast serve 0mhq3z5k1-4t7v2c9x8b1d --repository s3://backups/lab --listen 192.0.2.7:10809 --tls /etc/holdfast/tls",
      explanation: "To other machines, which need a certificate of the same CA.",
    },
  ],
  run: async (context, input) => {
    const socket = input.text("socket");
    const address = input.text("listen");
    const tls = input.text("tls");
    const disk = input.text("disk");
    if (socket !== undefined && address !== undefined) {
      throw new Failure("input.invalid", { message: "give one of --socket and --listen" });
    }
    const cacheBytes = parseBytes("--cache", input.text("cache") ?? "256M");
    if (cacheBytes < mib) {
      throw new Failure("input.invalid", { message: "--cache must be 1M at least" });
    }
    const listen =
      socket === undefined
        ? address === undefined
          ? undefined
          : parseListenAddress(address)
        : { kind: "unix" as const, path: resolve(socket) };
    const stop = new AbortController();
    using _interrupt = context.onInterrupt(() => stop.abort());
    const served = await context.mover.run(
      {
        kind: "point-serve",
        url: repositoryUrl(input.text("repository") ?? ""),
        passphrase: await readPassphrase(context, { file: input.text("passphraseFile") }),
        pointId: input.argument("point"),
        ...(disk === undefined ? {} : { disk }),
        ...(listen === undefined ? {} : { listen }),
        ...(tls === undefined ? {} : { tlsFolder: resolve(tls) }),
        cacheBytes,
        ...readLimits(input),
      },
      {
        signal: stop.signal,
        onServing: (serving) => printServing(context, serving),
        onNote: (message) => note(context, printable(message)),
        onWarning: (message) => warn(context, message),
      },
    );
    if (context.settings.json) {
      context.stdout.write(`${JSON.stringify({ v: 1, type: "served", ...served })}\n`);
    } else {
      note(
        context,
        `Served ${formatBytes(served.bytes)} in ${served.requests} requests, ${formatDuration(served.seconds)}.`,
      );
    }
    return exitCodes.done.code;
  },
};

type Listen = NonNullable<(StandaloneRequest & { readonly kind: "point-serve" })["listen"]>;

/** `127.0.0.1:0`, `[::1]:10809`. */
function parseListenAddress(text: string): Listen {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|(\d{1,3}(?:\.\d{1,3}){3})):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined) {
    throw new Failure("input.invalid", {
      message: `--listen ${JSON.stringify(text)} is not of the form IP:PORT`,
    });
  }
  const range = { min: 0, max: 65_535 };
  return {
    kind: "tcp",
    host,
    port: parseWholeNumber("the port of --listen", match?.[3] ?? "", range),
  };
}

function warn(context: Context, message: string): void {
  const text = context.settings.json
    ? JSON.stringify({ v: 1, type: "warning", message })
    : `Warning: ${printable(message)}`;
  (context.settings.json ? context.stdout : context.stderr).write(`${text}\n`);
}

/** One line a disk on stdout, for scripts; what to do with it on stderr, for people. */
function printServing(context: Context, serving: Serving): void {
  if (context.settings.json) {
    context.stdout.write(`${JSON.stringify({ v: 1, type: "serving", ...serving })}\n`);
    return;
  }
  for (const { uri } of serving.exports) context.stdout.write(`${printable(uri)}\n`);
  const [first] = serving.exports;
  if (first === undefined) return;
  const sizes = serving.exports.map(({ disk, sizeBytes }) => `${disk} (${formatBytes(sizeBytes)})`);
  note(
    context,
    [
      printable(`Serving ${serving.name}, recovery point ${serving.pointId}: ${sizes.join(", ")}`),
      `  qemu-img compare -f raw -F raw disk.raw '${printable(first.uri)}'`,
      `  nbdcopy '${printable(first.uri)}' disk.raw`,
      `  qemu-img create -f qcow2 -F raw -b '${printable(first.uri)}' overlay.qcow2`,
      "Ctrl-C ends it.",
    ].join("\n"),
  );
}
