import { Failure } from "@holdfast/shared/domain/failure";
import type { NbdAddress } from "@holdfast/shared/ports/transport";

export type NbdUri = { readonly address: NbdAddress; readonly exportName: string };

const portDefault = 10_809;

export function isNbdUri(text: string): boolean {
  return /^nbds?(\+unix)?:/i.test(text);
}

/**
 * `nbd://host[:port]/export`, `nbds://…` (TLS by the system's certificates) and `nbd+unix:///export?socket=PATH`,
 * as in the NBD project's doc/uri.md. Fails with `input.invalid`.
 */
export function parseNbdUri(text: string): NbdUri {
  const invalid = (why: string): Failure =>
    new Failure("input.invalid", {
      message: `${JSON.stringify(text.slice(0, 200))} is not a usable NBD address: ${why}; use nbd://HOST[:PORT]/EXPORT, nbds://… or nbd+unix:///EXPORT?socket=PATH`,
    });
  const match = /^(nbds?)(\+unix)?:\/\/([^/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/i.exec(text);
  if (match === null) throw invalid("it is malformed");
  const [, scheme = "", unix, authority = "", rawExport = "", query = ""] = match;
  const exportName = decode(rawExport);
  if (exportName === undefined) throw invalid("its export name is malformed");
  const parameters = new URLSearchParams(query);
  const unknown = [...parameters.keys()].find((name) => name !== "socket" || unix === undefined);
  if (unknown !== undefined) throw invalid(`its parameter ${unknown} is not known`);
  const isTls = scheme.toLowerCase() === "nbds";
  if (unix !== undefined) {
    const path = parameters.get("socket");
    if (path === null || path === "") throw invalid("it names no socket");
    if (isTls || authority !== "") throw invalid("a Unix socket has neither host nor TLS");
    return { address: { kind: "unix", path }, exportName };
  }
  const place = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:@[\]]+))(?::(\d{1,5}))?$/.exec(authority);
  const host = place?.[1] ?? place?.[2];
  const port = place?.[3] === undefined ? portDefault : Number(place[3]);
  if (host === undefined || port < 1 || port > 65_535)
    throw invalid("its host or port is malformed");
  return { address: { kind: "tcp", host, port, ...(isTls ? { tls: {} } : {}) }, exportName };
}

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
