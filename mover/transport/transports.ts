import type { Transports } from "@holdfast/shared/ports/transport";
import { createLocalHost } from "./local-host.ts";
import { openNbdReader } from "./nbd/nbd-reader.ts";
import { openNbdWriter } from "./nbd/nbd-writer.ts";
import { connectSsh } from "./ssh/connect-ssh.ts";

/** How drivers reach machines and disks: the real ones. */
export function createTransports(): Transports {
  return {
    async connectHost(address, options) {
      switch (address.kind) {
        case "local":
          return createLocalHost();
        case "ssh":
          return connectSsh(address, options);
        default:
          return address satisfies never;
      }
    },
    openNbd: openNbdReader,
    openNbdForWriting: openNbdWriter,
  };
}
