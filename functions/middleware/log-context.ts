import type { Logger } from "@holdfast/shared/ports/logger";
import type { MiddlewareObj } from "@middy/core";

/** One line for each call that failed, with the function's name, the job and Lambda's request id; never the event itself. */
export function logContext(name: string, logger: () => Logger): MiddlewareObj {
  return {
    onError: ({ event, context, error }) => {
      const jobId =
        typeof event === "object" && event !== null && "jobId" in event ? event.jobId : undefined;
      logger().error("function failed", {
        function: name,
        jobId,
        requestId: context.awsRequestId,
        error: error?.name,
        message: error?.message,
      });
    },
  };
}
