import type { ForgetReport } from "@holdfast/shared/contracts/standalone";
import { Failure } from "@holdfast/shared/domain/failure";
import { planRetention } from "@holdfast/shared/domain/retention";
import type { PointSummary } from "@holdfast/shared/repository/repository";
import { collectIn } from "./collect.ts";
import { newestFirst } from "./find-point.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

/** Lets points expire, by name or by what a retention keeps, and collects what only they need. */
export async function forgetPoints(
  context: StandaloneContext,
  request: Request<"image-forget">,
): Promise<ForgetReport> {
  const repository = await context.open(request);
  const listed = await newestFirst(context, repository);
  const decided = decide(listed, request);
  const unlisted = request.points.filter((text) => isRootName(text) && !hasRoot(listed, text));
  const expire = decided.filter(({ keptBy }) => keptBy.length === 0);
  refuseLast(listed, expire, request.lastToo);
  const rootKeys = [...expire.map(({ point }) => point.rootKey), ...unlisted];
  const collected = await collectIn(context, repository, request, rootKeys);
  return {
    points: decided.map(({ point: { pointId, vmName, takenAt }, keptBy }) => ({
      pointId,
      name: vmName,
      takenAt,
      keptBy: [...keptBy],
    })),
    collected,
  };
}

type Decided = { readonly point: PointSummary; readonly keptBy: readonly string[] };

/** Of the points that are named, or that the retention is about, each one that goes has no reason to stay. */
function decide(
  listed: readonly PointSummary[],
  { points, retention, name }: Request<"image-forget">,
): readonly Decided[] {
  if (points.length > 0) {
    return points
      .filter((text) => !isRootName(text) || hasRoot(listed, text))
      .map((text) => ({ point: findOne(listed, text), keptBy: [] }));
  }
  if (retention === undefined) {
    throw new Failure("input.invalid", {
      message: "say which points to forget, or how many to keep",
    });
  }
  const concerned = listed.filter(({ vmName }) => name === undefined || vmName === name);
  if (name !== undefined && concerned.length === 0) {
    throw new Failure("not-found", { message: `there is no point named ${JSON.stringify(name)}` });
  }
  const byVm = Map.groupBy(concerned, ({ vmKey }) => vmKey);
  return [...byVm.values()].flatMap((its) => {
    const plan = planRetention({ points: its, retention, pinned: new Set() });
    return [
      ...plan.keep.map(({ point, reasons }) => ({ point, keptBy: reasons })),
      ...plan.remove.map((point) => ({ point, keptBy: [] })),
    ];
  });
}

/** A name of an object instead of an id: how a point is given up whose root does not open. */
function isRootName(text: string): boolean {
  return text.startsWith("points/");
}

function hasRoot(listed: readonly PointSummary[], rootKey: string): boolean {
  return listed.some((point) => point.rootKey === rootKey);
}

function findOne(listed: readonly PointSummary[], text: string): PointSummary {
  const found = listed.filter(({ pointId, rootKey }) => pointId === text || rootKey === text);
  const [only] = found;
  if (only !== undefined && found.length === 1) return only;
  throw new Failure(only === undefined ? "not-found" : "conflict", {
    message:
      only === undefined
        ? `there is no recovery point ${JSON.stringify(text)}; \`holdfast image points\` lists them`
        : `${text} is the id of several points: ${found.map(({ rootKey }) => rootKey).join(", ")}; name the object`,
  });
}

function refuseLast(
  listed: readonly PointSummary[],
  expire: readonly Decided[],
  lastToo: boolean,
): void {
  if (lastToo) return;
  const going = new Set(expire.map(({ point }) => point.rootKey));
  for (const its of Map.groupBy(listed, ({ vmKey }) => vmKey).values()) {
    const [newest] = its;
    if (newest === undefined || its.some(({ rootKey }) => !going.has(rootKey))) continue;
    throw new Failure("collect.brake", {
      message: `${newest.pointId} would be the last point of ${newest.vmName} to go: if that is meant, say --last-too`,
    });
  }
}
