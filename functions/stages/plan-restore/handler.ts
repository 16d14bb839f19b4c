import * as wiring from "../../wiring.ts";
import { StageEvent, stageHandler } from "../stage-event.ts";
import { planRestore } from "./plan-restore.ts";

export const handler = stageHandler({
  name: "plan-restore",
  event: StageEvent,
  logger: wiring.logger,
  decide: (event) => planRestore(event, wiring.catalog()),
});
