import { Failure } from "../domain/failure.ts";
import type { HostConnection } from "../ports/host.ts";
import { removeFile, runOnHost } from "./files.ts";
import { endProcesses } from "./host-processes.ts";

/**
 * qemu-nbd on the host, on a Unix socket of its own. A dying qemu-nbd removes its socket's path, so each export
 * needs a fresh one. It outlives the connection that started it: the caller has it in the ledger first.
 */
export type NbdExport = {
  /** Absolute; at most 107 bytes, as sockets' names are. */
  readonly socket: string;
  readonly exportName: string;
  /** A `json:` or `rbd:` name, or a path together with `format`. */
  readonly image: string;
  readonly format?: "raw" | "qcow2";
  readonly access: "read" | "write";
  /** Exports this bitmap as `qemu:dirty-bitmap:NAME`. */
  readonly bitmap?: string;
};

const connectionsMax = 16;

export async function startNbdExport(
  connection: HostConnection,
  export_: NbdExport,
): Promise<void> {
  const { socket, exportName, image, format, access, bitmap } = export_;
  if (Buffer.byteLength(socket) > 107) {
    throw new Failure("input.invalid", {
      message: `the socket path ${socket} is too long; choose a shorter scratch folder`,
    });
  }
  await runOnHost(connection, [
    "qemu-nbd",
    "--fork",
    "--persistent",
    `--shared=${connectionsMax}`,
    `--socket=${socket}`,
    `--export-name=${exportName}`,
    ...(format === undefined ? [] : [`--format=${format}`]),
    ...(access === "read"
      ? ["--read-only", "--allocation-depth"]
      : ["--discard=unmap", "--detect-zeroes=off"]),
    ...(bitmap === undefined ? [] : [`--bitmap=${bitmap}`]),
    image,
  ]);
}

/** One that is gone already is no failure. */
export async function stopNbdExport(connection: HostConnection, socket: string): Promise<void> {
  await endProcesses(connection, { argument: `--socket=${socket}`, program: "qemu-nbd" });
  await removeFile(connection, socket);
}
