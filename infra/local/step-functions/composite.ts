import type { Json, JsonObject } from "../json.ts";
import { isJsonObject } from "../json.ts";
import { innerOf, type MapState, type ParallelState, type StateMachineBody } from "./asl.ts";
import { get, type PathScope } from "./json-path.ts";
import { fillTemplate } from "./payload-template.ts";
import { StateError, Suspended } from "./state-error.ts";
import { type Branch, randomOf, type Step, writeIn } from "./step.ts";

/** Map and Parallel: states with branches of their own. */
type Composite = {
  readonly step: Step;
  readonly state: MapState | ParallelState;
  /** Name of this attempt in the log. */
  readonly name: string;
  /** The interpreter itself, for the branches. */
  readonly runStates: (
    interpreter: Step["interpreter"],
    machine: StateMachineBody,
    input: Json,
    branch: Branch,
  ) => Promise<Json>;
};
type StartedComposite = Composite & { readonly startedId: number };

type Child = {
  readonly machine: StateMachineBody;
  readonly input: Json;
  readonly map?: JsonObject;
};

export async function runComposite(composite: Composite, scope: PathScope): Promise<Json> {
  const { step, state, name } = composite;
  const { interpreter, branch } = step;
  const outcomeSlot = `${name}:outcome`;
  const recorded = interpreter.log.find(outcomeSlot)?.internal;
  if (recorded?.["error"] !== undefined) {
    throw new StateError(String(recorded["error"]), String(recorded["cause"]));
  }
  const children = childrenOf(step, state, scope);
  const started = writeIn(step, `${name}:schedule`, `${state.Type}StateStarted`, {
    ...(state.Type === "Map" ? { details: { length: children.length } } : {}),
  });
  const concurrency =
    state.Type === "Map" && state.MaxConcurrencyPath !== undefined
      ? Number(get(state.MaxConcurrencyPath, scope))
      : state.Type === "Map"
        ? (state.MaxConcurrency ?? 0)
        : 0;
  try {
    const results = await runChildren({ ...composite, startedId: started.id }, children, {
      concurrency: concurrency > 0 ? concurrency : children.length,
    });
    writeIn(step, outcomeSlot, `${state.Type}StateSucceeded`, {});
    return results;
  } catch (error) {
    if (!(error instanceof StateError) || branch.signal.aborted) throw error;
    writeIn(step, outcomeSlot, `${state.Type}StateFailed`, {
      details: { error: error.error, cause: error.cause_ },
      internal: { error: error.error, cause: error.cause_ },
    });
    throw error;
  }
}

/** The first child that fails stops the others: their tasks can no longer be answered. */
async function runChildren(
  composite: StartedComposite,
  children: readonly Child[],
  { concurrency }: { readonly concurrency: number },
): Promise<Json> {
  const { step, name } = composite;
  const controller = new AbortController();
  const signal = AbortSignal.any([step.branch.signal, controller.signal]);
  const results: Json[] = new Array<Json>(children.length).fill(null);
  const finished = new Set<number>();
  let nextChild = 0;
  let started = 0;
  let failure: unknown;

  const worker = async () => {
    while (nextChild < children.length && failure === undefined) {
      const index = nextChild;
      nextChild += 1;
      started = Math.max(started, nextChild);
      const child = children[index];
      if (child === undefined) return;
      const branch: Branch = {
        path: `${name}/${index}/`,
        signal,
        lastId: composite.startedId,
        map: child.map ?? step.branch.map,
      };
      try {
        iteration(composite, branch, "Started", index);
        results[index] = await composite.runStates(
          step.interpreter,
          child.machine,
          child.input,
          branch,
        );
        if (signal.aborted) throw new Suspended();
        iteration(composite, branch, "Succeeded", index);
        finished.add(index);
      } catch (error) {
        if (failure !== undefined || step.branch.signal.aborted) return;
        failure = error;
        controller.abort(new Suspended());
        if (error instanceof StateError) iteration(composite, branch, "Failed", index);
        finished.add(index);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, children.length) }, worker));
  if (step.branch.signal.aborted) throw new Suspended();
  if (failure === undefined) return results;
  if (!(failure instanceof StateError)) throw failure;
  for (let index = 0; index < started; index += 1) {
    const branch = { ...step.branch, path: `${name}/${index}/`, lastId: composite.startedId };
    if (!finished.has(index)) iteration(composite, branch, "Aborted", index);
  }
  throw failure;
}

/** Map iterations have events of their own; branches of Parallel do not. */
function iteration(composite: Composite, branch: Branch, what: string, index: number): void {
  if (composite.state.Type !== "Map") return;
  const event = composite.step.interpreter.log.write({
    slot: `${branch.path}${what.toLowerCase()}`,
    type: `MapIteration${what}`,
    previousId: branch.lastId,
    details: { name: composite.step.name, index },
  });
  branch.lastId = event.id;
}

function childrenOf(step: Step, state: MapState | ParallelState, scope: PathScope): Child[] {
  const random = randomOf(step);
  if (state.Type === "Parallel") {
    const input =
      state.Parameters === undefined ? scope.input : fillTemplate(state.Parameters, scope, random);
    return state.Branches.map((machine) => ({ machine, input }));
  }
  const [machine] = innerOf(state);
  const items = get(state.ItemsPath ?? "$", scope);
  if (machine === undefined || !Array.isArray(items)) {
    throw new StateError("States.Runtime", `The items of ${step.name} are not an array`);
  }
  const selector = state.ItemSelector ?? state.Parameters;
  return items.map((item: Json, index) => {
    const map = { Item: { Index: index, Value: item } };
    const context = { ...(isJsonObject(scope.context) ? scope.context : {}), Map: map };
    const input =
      selector === undefined
        ? item
        : fillTemplate(selector, { input: scope.input, context }, random);
    return { machine, input, map };
  });
}
