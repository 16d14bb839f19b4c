import type { CommandDefinition } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { note, printTable } from "../report.ts";
import { repositoryUrl } from "../repository-url.ts";

export const recoverRepository: CommandDefinition = {
  path: "repository recover",
  summary: "bring back objects that somebody overwrote or deleted in a bucket with versions",
  description:
    "Holdfast never overwrites and never leaves delete markers: where an object has more than one version, the first one is Holdfast's. It is " +
    "copied on top of the others; nothing is removed, and no passphrase is needed, because every reader authenticates what it reads. What was removed with all " +
    "its versions cannot come back this way; Object Lock prevents that. Afterwards `holdfast repository verify` shows what is right again.",
  arguments: [{ name: "url", summary: "s3://bucket/prefix" }],
  options: [{ flags: "--dry-run", summary: "only list what would be brought back" }],
  examples: [
    {
      command: "holdfast repository recover s3://backups/lab --dry-run",
      explanation: "After `repository doctor` found overwritten or deleted objects.",
    },
  ],
  run: async (context, input) => {
    const stop = new AbortController();
    using _interrupt = context.onInterrupt(() => stop.abort());
    const result = await context.mover.run(
      {
        kind: "repository-recover",
        url: repositoryUrl(input.argument("url")),
        dryRun: input.flag("dryRun"),
      },
      { signal: stop.signal },
    );
    printTable(context, result, {
      columns: [{ title: "OBJECT" }, { title: "WAS" }],
      rows: result.hidden.map(({ key, why }) => [key, why]),
      empty: "Nothing is overwritten or deleted.",
    });
    if (result.recovered > 0) note(context, `${result.recovered} objects were brought back.`);
    return exitCodes.done.code;
  },
};
