import * as wiring from "../../wiring.ts";
import { StageEvent, stageHandler } from "../stage-event.ts";
import { beginRestore } from "./begin-restore.ts";

export const handler = stageHandler({
  name: "begin-restore",
  event: StageEvent,
  logger: wiring.logger,
  decide: (event) => beginRestore(event, wiring.startServices()),
});
