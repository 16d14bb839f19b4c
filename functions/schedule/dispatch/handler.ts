import { stageHandler } from "../../stages/stage-event.ts";
import * as wiring from "../../wiring.ts";
import { DispatchEvent, dispatch } from "./dispatch.ts";

export const handler = stageHandler({
  name: "dispatch",
  event: DispatchEvent,
  logger: wiring.logger,
  decide: (event) => dispatch(event, { ...wiring.startServices(), logger: wiring.logger() }),
});
