import { Stack, Validations } from "aws-cdk-lib";
import type { Construct } from "constructs";

/** Says why a right on more than one resource is needed. The ARN is the one in the policy; nothing else is accepted by it. */
export function acceptWildcard(construct: Construct, arn: string, reason: string): void {
  const shown = render(Stack.of(construct).resolve(arn));
  Validations.of(construct).acknowledge({ id: `AwsSolutions-IAM5[Resource::${shown}]`, reason });
}

/** As cdk-nag writes what CloudFormation fills in: `<AWS::Region>`, `<Bucket.Arn>`, the export's name. */
function render(value: unknown): string {
  if (typeof value === "string") return value;
  if (typeof value !== "object" || value === null) throw unknownForm(value);
  const [[name, operand] = []] = Object.entries(value);
  if (name === "Ref") return `<${operand}>`;
  if (name === "Fn::GetAtt" && Array.isArray(operand)) return `<${operand.join(".")}>`;
  if (name === "Fn::ImportValue") return String(operand);
  if (name === "Fn::Join" && Array.isArray(operand) && Array.isArray(operand[1])) {
    return operand[1].map(render).join(String(operand[0]));
  }
  throw unknownForm(value);
}

function unknownForm(value: unknown): Error {
  return new Error(`an ARN in an unknown form: ${JSON.stringify(value)}`);
}
