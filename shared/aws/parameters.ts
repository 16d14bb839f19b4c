import {
  DeleteParameterCommand,
  GetParameterCommand,
  PutParameterCommand,
  type SSMClient,
} from "@aws-sdk/client-ssm";
import { Failure } from "../domain/failure.ts";
import type { Parameters } from "../ports/parameters.ts";
import { awsErrorName, awsFailure } from "./aws-failures.ts";

/** A standard parameter holds 4 KiB; AWS chooses the advanced tier for longer values (a long RSA key) by itself. */
const tier = "Intelligent-Tiering";

/** Secrets as SecureStrings of SSM's Parameter Store. Values never reach a message: AWS's own messages name only the parameter. */
export function createSsmParameters(client: SSMClient): Parameters {
  return {
    async getSecret(name) {
      try {
        const answer = await client.send(
          new GetParameterCommand({ Name: name, WithDecryption: true }),
        );
        const value = answer.Parameter?.Value;
        if (value !== undefined) return value;
      } catch (error) {
        if (awsErrorName(error) !== "ParameterNotFound") {
          throw awsFailure(error, `reading parameter ${name}`);
        }
      }
      throw new Failure("not-found", { message: `there is no parameter ${name}` });
    },
    async putSecret(name, value) {
      try {
        await client.send(
          new PutParameterCommand({
            Name: name,
            Value: value,
            Type: "SecureString",
            Tier: tier,
            Overwrite: true,
          }),
        );
      } catch (error) {
        // Without the cause: a validation message could quote the value.
        throw new Failure(awsFailure(error, "").code, {
          message: `writing parameter ${name}: ${awsErrorName(error)}`,
        });
      }
    },
    async remove(name) {
      try {
        await client.send(new DeleteParameterCommand({ Name: name }));
      } catch (error) {
        if (awsErrorName(error) === "ParameterNotFound") return;
        throw awsFailure(error, `removing parameter ${name}`);
      }
    },
  };
}
