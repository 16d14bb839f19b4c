import type { CatalogPoint } from "@holdfast/shared/contracts/standalone";
import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { CommandDefinition } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { readPassphrase } from "../read-secret.ts";
import { printable } from "../render/format.ts";
import { note, printFields } from "../report.ts";
import { repositoryUrl } from "../repository-url.ts";

/** People hear of every so many points. */
const noteEvery = 100;

export const importRepository: CommandDefinition = {
  path: "repository import",
  summary: "make a control plane list the recovery points that a repository has",
  description:
    "For a control plane that was lost, or that is new: add the repository under a name, then import it. Its points and their VMs are listed again, " +
    "so that `points` and `restore` work; VMs count as gone until a sync of a provider with the name that they had finds them. What is listed already stays as it is; " +
    "a point that is listed as another object is named, and is exit code 3. Points of images are left out. It may be repeated. " +
    "The repository is read from this machine.",
  arguments: [{ name: "name", summary: "the repository's name in the control plane" }],
  options: [
    {
      flags: "--passphrase-file <file>",
      summary: "file with the passphrase (else HOLDFAST_PASSPHRASE, else a question)",
    },
    {
      flags: "--url <url>",
      summary: "where this machine finds it, if not where the movers do",
    },
    { flags: "--dry-run", summary: "only read the repository and count" },
  ],
  examples: [
    {
      command: "holdfast repository import offsite",
      explanation: "After `holdfast repository add offsite s3://backups/lab`.",
    },
    {
      command: "holdfast repository import main --url /mnt/nas/backup --json",
      explanation: "One JSON document with what was added.",
    },
  ],
  run: async (context, input) => {
    const repositoryId = input.argument("name");
    const isDryRun = input.flag("dryRun");
    const api = await context.api();
    const { items } = await api.call("listRepositories");
    const known = items.find((item) => item.repositoryId === repositoryId);
    if (known === undefined) {
      throw new Failure("not-found", {
        message: `the control plane knows no repository ${JSON.stringify(repositoryId)}; \`holdfast repository add\` makes one known`,
      });
    }
    const counts = { added: 0, present: 0, different: 0 };
    const warn = (message: string): void => note(context, `warning: ${printable(message)}`);

    async function importPoint({ point, ...its }: CatalogPoint): Promise<void> {
      try {
        const { outcome } = await api.call("importPoint", {
          body: { ...its, point: { ...point, repositoryId } },
          idempotencyKey: `import-${point.pointId}`,
        });
        counts[outcome] += 1;
      } catch (error) {
        if (!isFailure(error, "conflict")) throw error;
        counts.different += 1;
        warn(error.message);
      }
      const done = counts.added + counts.present + counts.different;
      if (done % noteEvery === 0) note(context, `${done} recovery points`);
    }

    const found = await context.mover.run(
      {
        kind: "repository-catalog",
        url: repositoryUrl(input.text("url") ?? known.url),
        passphrase: await readPassphrase(context, { file: input.text("passphraseFile") }),
      },
      { onWarning: warn, ...(isDryRun ? {} : { onPoint: importPoint }) },
    );
    const { points, images, unreadable } = found;
    printFields(context, { repositoryId, isDryRun, points, ...counts, images, unreadable }, [
      ["repository", repositoryId],
      ["points", isDryRun ? `${points}; nothing was changed` : String(points)],
      ["added", String(counts.added)],
      ["listed before", String(counts.present)],
      ["listed as another object", String(counts.different)],
      ["of images, left out", String(images)],
      ["unreadable", String(unreadable)],
    ]);
    return counts.different + unreadable > 0 ? exitCodes.warnings.code : exitCodes.done.code;
  },
};
