/**
 * Which Lambda functions exist: data that the CDK app and the local stack share. Entries are paths from the
 * repository's root; each exports `handler(event, context)`. The names are the placeholders of the ASL files.
 */
export type FunctionEntry = {
  readonly name: string;
  readonly entry: string;
  readonly timeoutSeconds: number;
  readonly memoryMiB: number;
};

export const functionTable = [
  stage("BeginBackup", "begin-backup"),
  stage("PlanTransfer", "plan-transfer"),
  stage("Commit", "commit"),
  stage("Retention", "retention"),
  stage("BeginRestore", "begin-restore"),
  stage("PlanRestore", "plan-restore"),
  stage("FinishJob", "finish-job"),
  {
    name: "RecoverJob",
    entry: "functions/events/recover-job/handler.ts",
    timeoutSeconds: 60,
    memoryMiB: 512,
  },
  {
    name: "Dispatch",
    entry: "functions/schedule/dispatch/handler.ts",
    timeoutSeconds: 300,
    memoryMiB: 512,
  },
  { name: "Api", entry: "functions/api/handler.ts", timeoutSeconds: 29, memoryMiB: 512 },
] as const satisfies readonly FunctionEntry[];

function stage<const Name extends string>(name: Name, folder: string) {
  return {
    name,
    entry: `functions/stages/${folder}/handler.ts`,
    timeoutSeconds: 60,
    memoryMiB: 512,
  } as const;
}
