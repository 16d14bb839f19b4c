import { stageHandler } from "../../stages/stage-event.ts";
import * as wiring from "../../wiring.ts";
import { recoverFromEvent, StatusChange } from "./recover-job.ts";

export const handler = stageHandler({
  name: "recover-job",
  event: StatusChange,
  logger: wiring.logger,
  decide: (event) =>
    recoverFromEvent(event, {
      ...wiring.startServices(),
      jobStateMachineArns: wiring.jobStateMachineArns(),
      logger: wiring.logger(),
    }),
});
