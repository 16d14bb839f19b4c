import { z } from "zod";

/** How a VM is protected. Schema and type are one definition. */
export const strategies = ["ssh-snapshot", "checkpoint"] as const;
export type Strategy = (typeof strategies)[number];

/** `require`: no point without a frozen guest. `try`: falls back to crash-consistent and says so on the point. */
export const quiesceModes = ["require", "try", "never"] as const;
export type QuiesceMode = (typeof quiesceModes)[number];

/** A command around the snapshot, on the hypervisor's host or in the guest by its agent. An argument vector: no shell. */
export const HookCommand = z.strictObject({
  where: z.enum(["host", "guest"]),
  command: z.array(z.string().min(1).max(4096)).min(1).max(64),
  timeoutSeconds: z.int().min(1).max(3600).default(60),
  /** What a failure of the command means. */
  onFailure: z.enum(["fail", "warn"]).default("fail"),
});
export type HookCommand = z.infer<typeof HookCommand>;

/** How many points are kept by each rule; a point stays while any rule keeps it. 0 means none by that rule. */
export const Retention = z.strictObject({
  last: z.int().min(0).max(10_000).default(7),
  hourly: z.int().min(0).max(10_000).default(0),
  daily: z.int().min(0).max(10_000).default(0),
  weekly: z.int().min(0).max(10_000).default(0),
  monthly: z.int().min(0).max(10_000).default(0),
  yearly: z.int().min(0).max(10_000).default(0),
});
export type Retention = z.infer<typeof Retention>;

export const BackupOptions = z.strictObject({
  /** `auto`: checkpoint where every included disk and the host allow it, else ssh-snapshot. */
  strategy: z.enum(["auto", ...strategies]).default("auto"),
  quiesce: z.enum(quiesceModes).default("try"),
  /** Disk keys (`vdb`) that are left out. */
  excludeDisks: z.array(z.string().min(1).max(64)).max(64).default([]),
  preCommands: z.array(HookCommand).max(16).default([]),
  postCommands: z.array(HookCommand).max(16).default([]),
  /** False: nothing is kept on the host between backups, and every backup reads everything. */
  incremental: z.boolean().default(true),
  /** Share of the bytes that the source calls unchanged, zero or hole which is read again and compared; 0 to 1. */
  sampleShare: z.number().min(0).max(1).default(0.01),
  /** Free bytes that scratch or overlay space needs before a snapshot is made; the job is aborted when less than half of it is left. */
  scratchBytesMin: z
    .int()
    .min(0)
    .default(1024 ** 3),
});
export type BackupOptions = z.infer<typeof BackupOptions>;

/** Which VMs a policy protects; a VM matches when every given field does. An empty selection matches nothing. */
export const VmSelection = z.strictObject({
  providerIds: z.array(z.string()).max(1000).optional(),
  /** Glob on the VM's name: `*` any run, `?` one character. */
  namePattern: z.string().min(1).max(256).optional(),
  tags: z.array(z.string()).max(64).optional(),
  vmIds: z.array(z.string()).max(10_000).optional(),
});
export type VmSelection = z.infer<typeof VmSelection>;
