import type { VerifyReport } from "@holdfast/shared/contracts/standalone";
import { verifyRepository } from "../pipeline/verify-repository.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

export async function verify(
  context: StandaloneContext,
  request: Request<"repository-verify">,
): Promise<VerifyReport> {
  const { share, pointId } = request;
  return await verifyRepository({
    repository: await context.open(request),
    share,
    ...(pointId === undefined ? {} : { pointId }),
    onProgress: context.reportProgress("recovery points"),
    signal: context.signal,
    logger: context.logger,
  });
}
