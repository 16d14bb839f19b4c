import type { CommandDefinition } from "./command.ts";
import { imageCommands } from "./commands/image.ts";
import { jobCommands } from "./commands/job.ts";
import { localCommands } from "./commands/local.ts";
import { pointCommands } from "./commands/point.ts";
import { policyCommands } from "./commands/policy.ts";
import { providerCommands } from "./commands/provider.ts";
import { repositoryCommands } from "./commands/repository.ts";
import { serveCommand } from "./commands/serve.ts";
import { statusCommand } from "./commands/status.ts";
import { vmCommands } from "./commands/vm.ts";

/** Every command there is, in the order in which help shows them. */
export const commandTable: readonly CommandDefinition[] = [
  ...localCommands,
  ...providerCommands,
  ...vmCommands,
  ...policyCommands,
  ...jobCommands,
  ...pointCommands,
  statusCommand,
  ...repositoryCommands,
  ...imageCommands,
  serveCommand,
];

/** Summaries of the words that only group commands. */
export const groupSummaries: Readonly<Record<string, string>> = {
  provider: "hypervisors and how they are reached",
  "provider add": "add a provider of a kind",
  vm: "virtual machines as the last sync saw them",
  policy: "which VMs, when, how, and how long points are kept",
  job: "one run of backup, restore or sync",
  repository: "the deduplicated, encrypted store",
  image: "stand-alone: disk images and a repository, no control plane",
};
