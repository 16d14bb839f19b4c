import { resolve } from "node:path";
import { imageFormats, type StandaloneRequest } from "@holdfast/shared/contracts/standalone";
import type { Context } from "../context.ts";
import { type ExitCode, exitCodes } from "../exit-codes.ts";
import { parseChoice } from "../parse-values.ts";
import { formatBytes, formatDuration, formatRate, printable } from "../render/format.ts";
import { runAsJob } from "./run-as-job.ts";

export type ImageRestore = Omit<StandaloneRequest & { readonly kind: "image-restore" }, "kind">;

/** By the option, else by the file's ending; undefined when neither tells. */
export function chooseFormat(
  option: string | undefined,
  path: string,
): "raw" | "qcow2" | undefined {
  if (option !== undefined) return parseChoice("--format", option, imageFormats);
  return /\.qcow2$/i.test(path) ? "qcow2" : undefined;
}

/** One disk of a point into a file or device on this machine. */
export async function restoreImage(context: Context, restore: ImageRestore): Promise<ExitCode> {
  const request = {
    ...restore,
    output: resolve(restore.output),
    kind: "image-restore",
  } as const;
  const result = await runAsJob(context, request, {
    endState: ({ lost }) => (lost.length > 0 ? "damaged" : "succeeded"),
  });
  if (!context.settings.json) {
    const { summary, disk, output, lost } = result;
    for (const { offset, length } of lost) {
      context.stdout.write(`LOST     bytes ${offset} to ${offset + length - 1} are zeros\n`);
    }
    const rate = summary.seconds > 0 ? summary.sizeBytes / summary.seconds : undefined;
    context.stdout.write(
      `${printable(output)}: disk ${printable(disk)} restored, ${formatBytes(summary.sizeBytes)}, ${formatDuration(summary.seconds)} (${formatRate(rate)})\n`,
    );
  }
  return result.lost.length > 0 ? exitCodes.verification.code : exitCodes.done.code;
}
