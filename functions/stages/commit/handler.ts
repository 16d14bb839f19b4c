import * as wiring from "../../wiring.ts";
import { StageEvent, stageHandler } from "../stage-event.ts";
import { commit } from "./commit.ts";

export const handler = stageHandler({
  name: "commit",
  event: StageEvent,
  logger: wiring.logger,
  decide: (event) => commit(event, wiring.catalog()),
});
