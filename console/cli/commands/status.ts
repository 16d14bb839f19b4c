import type { ApiStatus } from "@holdfast/shared/contracts/api";
import { jobStatesEnded } from "@holdfast/shared/contracts/catalog-items";
import type { CommandDefinition } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { formatAge, printable } from "../render/format.ts";
import { renderFields } from "../render/table.ts";
import { printResult } from "../report.ts";

const namesMax = 7;

function moversText(movers: ApiStatus["movers"]): string {
  if (movers.length === 0) return "none seen in the last two minutes: jobs wait until one is there";
  const sites = Map.groupBy(movers, ({ siteId }) => siteId);
  const versions = [...new Set(movers.map(({ version }) => version))].join(", ");
  const counts = [...sites].map(([siteId, its]) => `${its.length} at ${printable(siteId)}`);
  return `${counts.join(", ")} (version ${printable(versions)})`;
}

export const statusCommand: CommandDefinition = {
  path: "status",
  summary: "what is protected, what is not, what runs now",
  examples: [
    { command: "holdfast status", explanation: "One sentence first, then what needs attention." },
    {
      command: "holdfast status --json | jq .unprotected",
      explanation: "Names of the VMs without a recovery point.",
    },
  ],
  run: async (context) => {
    const api = await context.api();
    const [status, vms, jobs] = await Promise.all([
      api.call("getStatus"),
      api.call("listVms"),
      api.call("listJobs", { query: { limit: 100 } }),
    ]);
    const present = vms.items.filter((vm) => !vm.gone);
    const unprotected = present.filter((vm) => vm.lastPoint === undefined).map((vm) => vm.name);
    const running = jobs.items.filter((job) => !jobStatesEnded.includes(job.state));
    const failed = jobs.items.filter((job) => job.state === "failed");
    const document = {
      endpoint: api.endpoint,
      ...status,
      protected: present.length - unprotected.length,
      unprotected,
      running: running.map(({ jobId }) => jobId),
      failed: failed.map(({ jobId }) => jobId),
    };
    const shorten = (names: readonly string[]): string =>
      names.slice(0, namesMax).join(", ") +
      (names.length > namesMax ? `, and ${names.length - namesMax} more` : "");
    const lastFailed = failed[0];
    printResult(context, document, (forPeople) => {
      const sentence = `${present.length - unprotected.length} of ${present.length} machine(s) have a recovery point.\n`;
      const fields: (readonly [string, string])[] = [
        ["endpoint", api.endpoint],
        ["providers", String(status.providers)],
        ["repositories", String(status.repositories)],
        ["policies", String(status.policies)],
        ["movers", moversText(status.movers)],
        ["unprotected", shorten(unprotected) || "none"],
        ["running jobs", shorten(running.map(({ jobId }) => jobId)) || "none"],
        [
          "last failure",
          lastFailed === undefined
            ? "none"
            : `${lastFailed.jobId}, ${formatAge(lastFailed.endedAt, context.clock.now())}: ${printable(lastFailed.failure?.message ?? "")}`,
        ],
      ];
      return (forPeople ? `${sentence}\n` : "") + renderFields(fields, { forPeople });
    });
    return exitCodes.done.code;
  },
};
