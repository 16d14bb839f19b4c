import * as wiring from "../../wiring.ts";
import { StageEvent, stageHandler } from "../stage-event.ts";
import { planTransfer } from "./plan-transfer.ts";

export const handler = stageHandler({
  name: "plan-transfer",
  event: StageEvent,
  logger: wiring.logger,
  decide: (event) => planTransfer(event, wiring.catalog()),
});
