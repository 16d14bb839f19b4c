import { basename, resolve } from "node:path";
import { type ImagePoint, imageFormats } from "@holdfast/shared/contracts/standalone";
import type { CommandDefinition, CommandInput, OptionDefinition } from "../command.ts";
import type { Context } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { parsePercentage } from "../parse-values.ts";
import { readPassphrase } from "../read-secret.ts";
import { formatBytes, formatTime, printable } from "../render/format.ts";
import { note, printFields, printTable } from "../report.ts";
import { repositoryUrl } from "../repository-url.ts";
import { sizesText } from "../watch-jobs.ts";
import { forgetPoints } from "./forget-points.ts";
import { limitOptions, readLimits } from "./limits.ts";
import { holdImage } from "./object-lock.ts";
import { chooseFormat, restoreImage } from "./restore-image.ts";
import { runAsJob } from "./run-as-job.ts";
import { writeDocuments } from "./write-documents.ts";

const accessOptions: readonly OptionDefinition[] = [
  { flags: "--repository <url>", summary: "a directory or s3://bucket/prefix", required: true },
  {
    flags: "--passphrase-file <file>",
    summary: "file with the passphrase (else HOLDFAST_PASSPHRASE, else a question)",
  },
];

const backup: CommandDefinition = {
  path: "image backup",
  summary: "back up a disk image or device into a repository, without a control plane",
  description:
    "The source must not change meanwhile: a file that nobody writes to, a snapshot, or an NBD export of one. " +
    "Points of one name follow each other; what did not change is not stored again, nor is what any other point has.",
  arguments: [
    {
      name: "source",
      summary: "file, block device, nbd://HOST[:PORT][/EXPORT] or nbd+unix:///EXPORT?socket=PATH",
    },
  ],
  options: [
    ...accessOptions,
    {
      flags: "--name <name>",
      summary: "what the points are called (default: the source's file name)",
    },
    {
      flags: "--format <format>",
      summary: "of the source; qcow2 is read through qemu-nbd (default: by its ending)",
      choices: imageFormats,
    },
    {
      flags: "--base <point>",
      summary: "read only what changed since this point of the same name, or since the latest",
    },
    {
      flags: "--changes <file>",
      summary:
        "with --base: changed ranges as JSON, [{offset,length}] in bytes, or what nbdinfo or qemu-img map print",
    },
    {
      flags: "--bitmap <name>",
      summary: "with --base: dirty bitmap of the NBD export that the source is",
    },
    {
      flags: "--sample-share <share>",
      summary: "share of what is called unchanged that is read and compared (1% with --base)",
    },
    ...limitOptions,
  ],
  examples: [
    {
      command: "holdfast image backup disk.raw --repository /srv/backup",
      explanation: "Again later: only what is new is stored.",
    },
    {
      command:
        "holdfast image backup nbd://127.0.0.1:10809/vda --repository s3://backups/lab --name web1",
      explanation: "From an NBD export into a bucket.",
    },
    {
      command:
        "holdfast image backup 'nbd+unix:///?socket=/run/web1.nbd' --repository /srv/backup --name web1 --base latest --bitmap daily",
      explanation: "Only what the bitmap names is read, and 1 % of the rest as a check.",
    },
  ],
  run: async (context, input) => {
    const source = input.argument("source");
    const isUrl = /^[a-z+]+:\/\//.test(source);
    const path = isUrl && URL.canParse(source) ? new URL(source).pathname : source;
    const name = input.text("name") ?? (basename(path) || "image");
    const format = chooseFormat(input.text("format"), isUrl ? "" : source);
    const result = await runAsJob(context, {
      kind: "image-backup",
      ...(await readAccess(context, input)),
      source: isUrl ? source : resolve(source),
      ...(format === undefined ? {} : { format }),
      name,
      ...readBase(input),
      ...readLimits(input),
    });
    const [disk] = result.point.disks;
    if (disk?.reason) note(context, `Read in full: ${printable(disk.reason)}`);
    if (!context.settings.json) {
      const { sizeBytes, bytesRead, bytesNew, bytesStored, seconds } = result.summary;
      context.stdout.write(
        `${printable(name)}: recovery point ${result.point.pointId}, ${sizesText({ sizeBytes, bytesRead, bytesNew, bytesStored, seconds })}\n`,
      );
    }
    return exitCodes.done.code;
  },
};

const points: CommandDefinition = {
  path: "image points",
  summary: "list the recovery points of a repository, newest first",
  options: [...accessOptions, { flags: "--name <name>", summary: "only those of this name" }],
  examples: [
    {
      command: "holdfast image points --repository /srv/backup",
      explanation: "Points of VMs are listed as well.",
    },
  ],
  run: async (context, input) => {
    const name = input.text("name");
    const result = await context.mover.run(
      {
        kind: "image-points",
        ...(await readAccess(context, input)),
        ...(name === undefined ? {} : { name }),
      },
      {},
    );
    const isDamaged = result.points.some(({ damage }) => damage !== undefined);
    printTable(
      context,
      { items: result.points },
      {
        columns: [
          { title: "POINT" },
          { title: "NAME" },
          { title: "TAKEN" },
          { title: "DISKS" },
          { title: "MODE" },
          { title: "SIZE", align: "right" },
          ...(isDamaged ? [{ title: "DAMAGE" }] : []),
        ],
        rows: result.points.map((point) => [
          point.pointId,
          point.name,
          formatTime(point.takenAt),
          point.disks.map(({ key }) => key).join(","),
          [...new Set(point.disks.map(({ mode }) => mode ?? "-"))].join(","),
          formatBytes(point.disks.reduce((sum, disk) => sum + disk.sizeBytes, 0)),
          ...(isDamaged ? [damageText(point)] : []),
        ]),
        empty: "No recovery points. Make one: holdfast image backup SOURCE --repository URL",
      },
    );
    if (isDamaged) {
      note(context, "Points with damage: `holdfast repository verify URL` names the ranges.");
    }
    return exitCodes.done.code;
  },
};

function damageText({ damage }: ImagePoint): string {
  if (damage === undefined) return "-";
  const parts = damage.bytesLost > 0 ? [`${formatBytes(damage.bytesLost)} lost`] : [];
  return [...parts, ...(damage.isMetadataLost ? ["metadata lost"] : [])].join(", ");
}

const restore: CommandDefinition = {
  path: "image restore",
  summary: "write a disk of a recovery point to a file or device, without a control plane",
  arguments: [{ name: "point", summary: "id of the recovery point" }],
  options: [
    ...accessOptions,
    {
      flags: "-o, --output <file>",
      summary: "new file, or block device of at least the disk's size",
      required: true,
    },
    {
      flags: "--disk <disk>",
      summary: "key or number from 0; may be left out when there is one disk",
    },
    {
      flags: "--format <format>",
      summary: "of the file (default: by its ending, else raw)",
      choices: imageFormats,
    },
    { flags: "--overwrite", summary: "replace the file if it exists" },
    ...limitOptions,
    {
      flags: "--despite-damage",
      summary: "where data is lost write zeros, say where, and end with exit code 8",
    },
  ],
  examples: [
    {
      command: "holdfast image restore 0mhq3z5k1-4t7v2c9x8b1d --repository /srv/backup -o disk.raw",
      explanation: "Every byte is verified on the way.",
    },
    {
      command:
        "holdfast image restore 0mhq3z5k1-4t7v2c9x8b1d --repository /srv/backup -o disk.raw --despite-damage",
      explanation: "All but what `repository verify` named as damaged.",
    },
  ],
  run: async (context, input) => {
    const output = input.text("output") ?? "";
    const disk = input.text("disk");
    return await restoreImage(context, {
      ...(await readAccess(context, input)),
      pointId: input.argument("point"),
      ...(disk === undefined ? {} : { disk }),
      ...readLimits(input),
      output,
      format: chooseFormat(input.text("format"), output) ?? "raw",
      overwrite: input.flag("overwrite"),
      despiteDamage: input.flag("despiteDamage"),
    });
  },
};

const metadata: CommandDefinition = {
  path: "image metadata",
  summary: "show what a recovery point knows of its VM, or write its documents into a folder",
  description:
    "What is needed besides the disks to build the VM again by hand, from the repository alone: the hypervisor's own documents " +
    "(domain.xml, the UEFI variables as nvram) and description.json, which is the same for every kind of hypervisor. They may hold " +
    "secrets, such as a console's password: the files are for this user only.",
  arguments: [{ name: "point", summary: "id of the recovery point" }],
  options: [
    ...accessOptions,
    { flags: "-o, --output <folder>", summary: "where to write the documents; made if missing" },
    { flags: "--overwrite", summary: "replace files of these names" },
  ],
  examples: [
    {
      command:
        "holdfast image metadata 0mhq3z5k1-4t7v2c9x8b1d --repository s3://backups/lab -o web-1",
      explanation: "Writes web-1/domain.xml and the rest; `image restore` writes the disks.",
    },
  ],
  run: async (context, input) => {
    const result = await context.mover.run(
      {
        kind: "image-metadata",
        ...(await readAccess(context, input)),
        pointId: input.argument("point"),
      },
      {},
    );
    const output = input.text("output");
    const folder = output === undefined ? undefined : resolve(output);
    const overwrite = input.flag("overwrite");
    const files = folder === undefined ? [] : await writeDocuments(result, { folder, overwrite });
    printFields(context, folder === undefined ? result : { ...result, folder, files }, [
      ["point", result.pointId],
      ["VM", result.name],
      ["taken", formatTime(result.takenAt)],
      ["provider", result.providerKind],
      ["disks", result.disks.map(describeDisk).join(", ") || "none"],
      ["left out", result.excludedDisks.map(describeDisk).join(", ") || "none"],
      ["documents", Object.keys(result.documents).join(", ") || "none"],
      ...files.map((file) => ["written", file] as const),
    ]);
    return exitCodes.done.code;
  },
};

export const imageCommands: readonly CommandDefinition[] = [
  backup,
  points,
  restore,
  metadata,
  holdImage,
  forgetPoints,
];

/** How `image backup` is told what changed. */
function readBase(input: CommandInput) {
  const base = input.text("base");
  const changes = input.text("changes");
  const bitmap = input.text("bitmap");
  const share = input.text("sampleShare");
  return {
    ...(base === undefined ? {} : { base }),
    ...(changes === undefined ? {} : { changes: resolve(changes) }),
    ...(bitmap === undefined ? {} : { bitmap }),
    ...(share === undefined ? {} : { sampleShare: parsePercentage("--sample-share", share) }),
  };
}

function describeDisk({ key, sizeBytes }: { key: string; sizeBytes: number }): string {
  return `${key} (${formatBytes(sizeBytes)})`;
}

async function readAccess(
  context: Context,
  input: CommandInput,
): Promise<{ readonly url: string; readonly passphrase: string }> {
  return {
    url: repositoryUrl(input.text("repository") ?? ""),
    passphrase: await readPassphrase(context, { file: input.text("passphraseFile") }),
  };
}
