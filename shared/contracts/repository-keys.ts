import { z } from "zod";

const secret = z.string().min(1).max(1024);
const label = z.string().max(200);

/** What `holdfast repository keys` asks of a repository. */
export const KeysAction = z.discriminatedUnion("do", [
  z.strictObject({ do: z.literal("list") }),
  z.strictObject({ do: z.literal("add-passphrase"), newPassphrase: secret, label }),
  z.strictObject({ do: z.literal("add-kms"), keyArn: z.string().min(1).max(2048), label }),
  /** The answer has the words, once. */
  z.strictObject({ do: z.literal("add-recovery-key"), label }),
  z.strictObject({ do: z.literal("remove"), id: z.string().max(32) }),
  z.strictObject({
    do: z.literal("rotate"),
    /** Ids of those that are to take part; absent: all of the newest epoch. */
    only: z.array(z.string().max(32)).min(1).max(256).optional(),
  }),
  z.strictObject({ do: z.literal("check"), others: z.array(secret).max(16) }),
]);

export const keyKinds = ["passphrase", "recovery-key", "aws-kms"] as const;

const KeyOfRepository = z.object({
  id: z.string(),
  kind: z.enum(keyKinds),
  label: z.string(),
  createdAt: z.string(),
  keyArn: z.string().optional(),
  epochs: z.array(z.int()),
  /** Takes part in the newest epoch: opens everything. */
  isComplete: z.boolean(),
  /** It was the one that opened the repository now. */
  isOpen: z.boolean(),
});
export type KeyOfRepository = z.infer<typeof KeyOfRepository>;

export const KeysResult = z.object({
  /** Seals what is new; absent while that is unclear. */
  activeEpoch: z.int().optional(),
  epochs: z.array(z.int()),
  keys: z.array(KeyOfRepository),
  /** Objects below `keys/` that take no part, and why. */
  findings: z.array(z.object({ object: z.string(), reason: z.string() })),
  warnings: z.array(z.string()),
  /** The key that was added. */
  added: z.string().optional(),
  /** Of a new recovery key; nowhere else, and never again. */
  words: z.string().optional(),
  /** Of a check: for each key that was given, in order, the ids that it opens whole. */
  opened: z.array(z.array(z.string())).optional(),
});
export type KeysResult = z.infer<typeof KeysResult>;
