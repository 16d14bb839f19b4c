import { Aws } from "aws-cdk-lib";
import { PolicyStatement, Role, ServicePrincipal } from "aws-cdk-lib/aws-iam";
import type { Function as LambdaFunction } from "aws-cdk-lib/aws-lambda";
import { CfnScheduleGroup } from "aws-cdk-lib/aws-scheduler";
import { Construct } from "constructs";

export type PolicySchedulesProps = { readonly groupName: string; readonly target: LambdaFunction };

/** The group in which the API keeps one schedule for each policy, and the role by which schedules call their target. */
export class PolicySchedules extends Construct {
  readonly groupName: string;
  readonly role: Role;

  constructor(scope: Construct, id: string, { groupName, target }: PolicySchedulesProps) {
    super(scope, id);
    this.groupName = groupName;
    new CfnScheduleGroup(this, "Group", { name: groupName });
    this.role = new Role(this, "Role", {
      // Schedules of this account only, not anybody's who names the role.
      assumedBy: new ServicePrincipal("scheduler.amazonaws.com", {
        conditions: { StringEquals: { "aws:SourceAccount": Aws.ACCOUNT_ID } },
      }),
    });
    this.role.addToPolicy(
      new PolicyStatement({
        actions: ["lambda:InvokeFunction"],
        resources: [target.functionArn],
      }),
    );
  }
}
