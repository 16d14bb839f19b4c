import * as wiring from "../../wiring.ts";
import { StageEvent, stageHandler } from "../stage-event.ts";
import { beginBackup } from "./begin-backup.ts";

export const handler = stageHandler({
  name: "begin-backup",
  event: StageEvent,
  logger: wiring.logger,
  decide: (event) => beginBackup(event, wiring.startServices()),
});
