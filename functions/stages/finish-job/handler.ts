import * as wiring from "../../wiring.ts";
import { stageHandler } from "../stage-event.ts";
import { FinishEvent, finishJob } from "./finish-job.ts";

export const handler = stageHandler({
  name: "finish-job",
  event: FinishEvent,
  logger: wiring.logger,
  decide: (event) =>
    finishJob(event, {
      catalog: wiring.catalog(),
      clock: wiring.clock,
      eventBus: wiring.eventBus(),
    }),
});
