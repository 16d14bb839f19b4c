import * as wiring from "../../wiring.ts";
import { StageEvent, stageHandler } from "../stage-event.ts";
import { applyRetention } from "./retention.ts";

export const handler = stageHandler({
  name: "retention",
  event: StageEvent,
  logger: wiring.logger,
  decide: (event) => applyRetention(event, wiring.catalog()),
});
