import {
  CreateScheduleCommand,
  DeleteScheduleCommand,
  type SchedulerClient,
  UpdateScheduleCommand,
} from "@aws-sdk/client-scheduler";
import { Failure } from "../domain/failure.ts";
import type { PolicySchedule, Schedules } from "../ports/schedules.ts";
import { awsErrorName, awsFailure } from "./aws-failures.ts";

/** AWS replaces this by the time for which a run was planned, so that a repeated delivery names the same time. */
const scheduledTime = "<aws.scheduler.scheduled-time>";

export function createPolicySchedules(options: {
  readonly client: SchedulerClient;
  readonly groupName: string;
  readonly targetArn: string;
  readonly roleArn: string;
}): Schedules {
  const { client, groupName, targetArn, roleArn } = options;
  const definition = ({ policyId, expression, timeZone }: PolicySchedule) => ({
    Name: policyId,
    GroupName: groupName,
    ScheduleExpression: expression,
    ScheduleExpressionTimezone: timeZone,
    FlexibleTimeWindow: { Mode: "OFF" as const },
    Target: {
      Arn: targetArn,
      RoleArn: roleArn,
      Input: JSON.stringify({ policyId, time: scheduledTime }),
    },
  });
  return {
    async put(schedule) {
      const input = definition(schedule);
      try {
        try {
          await client.send(new UpdateScheduleCommand(input));
        } catch (error) {
          if (awsErrorName(error) !== "ResourceNotFoundException") throw error;
          await client.send(new CreateScheduleCommand(input));
        }
      } catch (error) {
        if (awsErrorName(error) === "ValidationException") {
          throw new Failure("input.invalid", {
            message: `the schedule ${JSON.stringify(schedule.expression)} in time zone ${JSON.stringify(schedule.timeZone)} is refused: ${error instanceof Error ? error.message : ""}`,
            cause: error,
          });
        }
        throw awsFailure(error, `setting the schedule of policy ${schedule.policyId}`);
      }
    },
    async remove(policyId) {
      try {
        await client.send(new DeleteScheduleCommand({ Name: policyId, GroupName: groupName }));
      } catch (error) {
        if (awsErrorName(error) === "ResourceNotFoundException") return;
        throw awsFailure(error, `removing the schedule of policy ${policyId}`);
      }
    },
  };
}
