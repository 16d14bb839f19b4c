import type { Branded } from "./branded.ts";
import { Failure } from "./failure.ts";

/** Ids of the control plane. Every id is made or accepted here and nowhere else. */
export type ProviderId = Branded<"ProviderId">;
export type VmId = Branded<"VmId">;
export type PolicyId = Branded<"PolicyId">;
export type JobId = Branded<"JobId">;
export type RecoveryPointId = Branded<"RecoveryPointId">;
export type RepositoryId = Branded<"RepositoryId">;
export type SiteId = Branded<"SiteId">;

const idPattern = /^[a-z0-9][a-z0-9-]{0,62}$/;

function parse(kind: string, text: string): string {
  if (idPattern.test(text)) return text;
  throw new Failure("input.invalid", {
    message: `${kind} ${JSON.stringify(text.slice(0, 80))} is not valid: use 1 to 63 lower-case letters, digits and dashes`,
  });
}

export const parseProviderId = (text: string): ProviderId =>
  parse("provider id", text) as ProviderId;
export const parseVmId = (text: string): VmId => parse("VM id", text) as VmId;
export const parsePolicyId = (text: string): PolicyId => parse("policy id", text) as PolicyId;
export const parseJobId = (text: string): JobId => parse("job id", text) as JobId;
export const parseRecoveryPointId = (text: string): RecoveryPointId =>
  parse("recovery point id", text) as RecoveryPointId;
export const parseRepositoryId = (text: string): RepositoryId =>
  parse("repository id", text) as RepositoryId;
export const parseSiteId = (text: string): SiteId => parse("site id", text) as SiteId;

/**
 * A new sortable id: milliseconds since 1970 in base 36 (9 characters), a dash, 12 random
 * characters of 5 bits each. Used for jobs and recovery points, so that a list by id is a list by time.
 */
export function newSortableId(nowMs: number, random: (lengthBytes: number) => Uint8Array): string {
  const alphabet = "0123456789abcdefghjkmnpqrstvwxyz";
  let tail = "";
  for (const byte of random(12)) tail += alphabet.charAt(byte & 31);
  return `${nowMs.toString(36).padStart(9, "0")}-${tail}`;
}
