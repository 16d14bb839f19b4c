/** Region and account in the ARNs of the local stack; fixed, so that stored ARNs outlive a change of AWS_REGION. */
export const region = "us-east-1";
export const account = "000000000000";

export const functionArn = (name: string): string =>
  `arn:aws:lambda:${region}:${account}:function:${name}`;
export const queueArn = (name: string): string => `arn:aws:sqs:${region}:${account}:${name}`;
export const stateMachineArn = (name: string): string =>
  `arn:aws:states:${region}:${account}:stateMachine:${name}`;
export const executionArn = (machine: string, name: string): string =>
  `arn:aws:states:${region}:${account}:execution:${machine}:${name}`;

/** The name at the end of an ARN of the wanted kind, or undefined. */
export function nameInArn(arn: string, kind: "function" | "stateMachine"): string | undefined {
  const service = kind === "function" ? "lambda" : "states";
  const match = new RegExp(`^arn:aws:${service}:[^:]*:[^:]*:${kind}:([^:]+)(?::[^:]+)?$`).exec(arn);
  return match?.[1];
}
