import type { RecoveryPoint } from "@holdfast/shared/contracts/catalog-items";
import { Failure } from "@holdfast/shared/domain/failure";
import type { CommandDefinition } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { parseChoice } from "../parse-values.ts";
import { readPassphrase } from "../read-secret.ts";
import { formatBytes, formatTime } from "../render/format.ts";
import { printTable } from "../report.ts";
import { chooseFormat, restoreImage } from "./restore-image.ts";
import { followJobs, newIdempotencyKey } from "./start-job.ts";

const pointArgument = { name: "point", summary: "id of the recovery point" };
const restoreStorages = ["file", "rbd", "original"] as const;
const restoreFormats = ["qcow2", "raw", "original"] as const;

const list: CommandDefinition = {
  path: "points",
  summary: "list a VM's recovery points, newest first",
  arguments: [{ name: "vm", summary: "name or id of the VM" }],
  examples: [
    {
      command: "holdfast points web1",
      explanation: "Each point is complete in itself, whatever its mode.",
    },
    {
      command: "holdfast points web1 | head -n 1 | cut -f 1",
      explanation: "Id of the newest point, for scripts.",
    },
  ],
  run: async (context, input) => {
    const { items } = await (await context.api()).call("listPoints", {
      query: { vm: input.argument("vm") },
    });
    const sum = (
      point: RecoveryPoint,
      field: "sizeBytes" | "bytesRead" | "bytesNew" | "bytesStored",
    ): string => formatBytes(point.disks.reduce((total, disk) => total + disk[field], 0));
    printTable(
      context,
      { items },
      {
        columns: [
          { title: "POINT" },
          { title: "TAKEN" },
          { title: "MODE" },
          { title: "CONSISTENCY" },
          { title: "DISKS" },
          { title: "SIZE", align: "right" },
          { title: "READ", align: "right" },
          { title: "NEW", align: "right" },
          { title: "STORED", align: "right" },
          { title: "WARNINGS", align: "right" },
        ],
        rows: items.map((point) => [
          point.pointId,
          formatTime(point.takenAt),
          point.mode,
          point.consistency,
          point.disks.map(({ key }) => key).join(","),
          sum(point, "sizeBytes"),
          sum(point, "bytesRead"),
          sum(point, "bytesNew"),
          sum(point, "bytesStored"),
          String(point.warnings.length),
        ]),
        empty: "No recovery points yet. Make one: holdfast backup VM",
      },
    );
    return exitCodes.done.code;
  },
};

const restore: CommandDefinition = {
  path: "restore",
  summary: "restore a recovery point as a VM",
  description:
    "By default a new VM beside the original: new UUID and MAC addresses, not started. A taken name is refused. " +
    "--mode replace takes the place of the stopped VM of that name, once all data is there.",
  arguments: [pointArgument],
  options: [
    { flags: "--name <name>", summary: "name of the restored VM (default: the original's)" },
    { flags: "--provider <name>", summary: "where to (default: where it came from)" },
    {
      flags: "--mode <mode>",
      summary: "beside what exists, or in its place",
      choices: ["new", "replace"],
    },
    { flags: "--start", summary: "start it when all is restored" },
    { flags: "--keep-identity", summary: "keep UUID and MAC addresses" },
    { flags: "--location <path>", summary: "folder on the host, or RBD pool, for the disks" },
    {
      flags: "--storage <kind>",
      summary: "kind of storage for the disks",
      choices: restoreStorages,
    },
    { flags: "--format <format>", summary: "format of the disks", choices: restoreFormats },
    {
      flags: "--excluded-disks <how>",
      summary: "disks that the backup left out: empty ones, or none",
      choices: ["empty", "omit"],
    },
  ],
  examples: [
    {
      command: "holdfast restore 0mhq3z5k1-4t7v2c9x8b1d --name web1-check --start",
      explanation: "A clone beside the original, running.",
    },
    {
      command: "holdfast restore 0mhq3z5k1-4t7v2c9x8b1d --mode replace --keep-identity",
      explanation: "Back to that moment; the VM must be stopped.",
    },
  ],
  run: async (context, input) => {
    const api = await context.api();
    const name = input.text("name");
    const providerId = input.text("provider");
    const location = input.text("location");
    const job = await api.call("startRestore", {
      body: {
        pointId: input.argument("point"),
        ...(name === undefined ? {} : { name }),
        ...(providerId === undefined ? {} : { providerId }),
        ...(location === undefined ? {} : { location }),
        mode: parseChoice("--mode", input.text("mode") ?? "new", ["new", "replace"]),
        keepIdentity: input.flag("keepIdentity"),
        start: input.flag("start"),
        storage: parseChoice("--storage", input.text("storage") ?? "original", restoreStorages),
        format: parseChoice("--format", input.text("format") ?? "original", restoreFormats),
        excludedDisks: parseChoice("--excluded-disks", input.text("excludedDisks") ?? "empty", [
          "empty",
          "omit",
        ]),
      },
      idempotencyKey: newIdempotencyKey(context),
    });
    return await followJobs(context, api, [job]);
  },
};

const exportDisk: CommandDefinition = {
  path: "export",
  summary: "write one disk of a recovery point to a file",
  description:
    "Reads the repository straight from this machine; no hypervisor takes part. The passphrase comes from " +
    "--passphrase-file, HOLDFAST_PASSPHRASE, the local profile, or a question.",
  arguments: [pointArgument],
  options: [
    {
      flags: "--disk <disk>",
      summary: "key (vda) or number from 0; may be left out when there is one disk",
    },
    { flags: "-o, --output <file>", summary: "new file, or block device", required: true },
    {
      flags: "--format <format>",
      summary: "format of the file (default: by its ending, else raw)",
      choices: ["raw", "qcow2"],
    },
    { flags: "--overwrite", summary: "replace the file if it exists" },
    { flags: "--passphrase-file <file>", summary: "file with the repository's passphrase" },
  ],
  examples: [
    {
      command: "holdfast export 0mhq3z5k1-4t7v2c9x8b1d --disk 0 -o web1.qcow2",
      explanation: "Ready for qemu, guestfish or nbdkit.",
    },
  ],
  run: async (context, input) => {
    const api = await context.api();
    const point = await api.call("getPoint", { id: input.argument("point") });
    const { items } = await api.call("listRepositories");
    const repository = items.find(({ repositoryId }) => repositoryId === point.repositoryId);
    if (repository === undefined) {
      throw new Failure("not-found", {
        message: `repository ${point.repositoryId} is not known to the control plane`,
      });
    }
    const profile = await context.profiles.get(context.profileName);
    const output = input.text("output") ?? "";
    const disk = input.text("disk");
    return await restoreImage(context, {
      url: repository.url,
      passphrase: await readPassphrase(context, {
        file: input.text("passphraseFile"),
        fallbackFile: profile?.passphraseFile,
      }),
      pointId: point.pointId,
      rootKey: point.rootKey,
      ...(disk === undefined ? {} : { disk }),
      output,
      format: chooseFormat(input.text("format"), output) ?? "raw",
      overwrite: input.flag("overwrite"),
    });
  },
};

export const pointCommands: readonly CommandDefinition[] = [list, restore, exportDisk];
