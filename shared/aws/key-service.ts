import { DecryptCommand, EncryptCommand, type KMSClient } from "@aws-sdk/client-kms";
import { Failure } from "../domain/failure.ts";
import type { KeyService } from "../ports/key-service.ts";
import { awsErrorName, awsFailure } from "./aws-failures.ts";
import { createKmsClient } from "./clients.ts";

/** The key itself is the reason; asking again cannot help. */
const refusals = new Set([
  "NotFoundException",
  "DisabledException",
  "KMSInvalidStateException",
  "InvalidKeyUsageException",
  "InvalidCiphertextException",
  "IncorrectKeyException",
  "InvalidArnException",
]);

/** AWS KMS. The region is that of the key's ARN; credentials and AWS_ENDPOINT_URL_KMS are the SDK's own settings. */
export function createKmsKeyService(
  createClient: (region: string) => KMSClient = createKmsClient,
): KeyService {
  const clients = new Map<string, KMSClient>();
  function clientFor(keyId: string): KMSClient {
    const region = regionOf(keyId);
    const client = clients.get(region) ?? createClient(region);
    clients.set(region, client);
    return client;
  }

  async function call<Answer>(doing: string, ask: () => Promise<Answer>): Promise<Answer> {
    try {
      return await ask();
    } catch (cause) {
      if (!refusals.has(awsErrorName(cause))) throw awsFailure(cause, doing);
      throw new Failure("key-service.refused", {
        message: `${doing}: ${awsErrorName(cause)}: ${cause instanceof Error ? cause.message : ""}`,
        cause,
      });
    }
  }

  return {
    encrypt: async ({ keyId, bytes, context }, { signal } = {}) => {
      const input = { KeyId: keyId, Plaintext: bytes, EncryptionContext: { ...context } };
      const answer = await call(`sealing with ${keyId}`, () =>
        clientFor(keyId).send(new EncryptCommand(input), abortable(signal)),
      );
      return present(answer.CiphertextBlob, keyId);
    },
    decrypt: async ({ keyId, bytes, context }, { signal } = {}) => {
      const input = { KeyId: keyId, CiphertextBlob: bytes, EncryptionContext: { ...context } };
      const answer = await call(`opening with ${keyId}`, () =>
        clientFor(keyId).send(new DecryptCommand(input), abortable(signal)),
      );
      return present(answer.Plaintext, keyId);
    },
  };
}

const abortable = (signal: AbortSignal | undefined) =>
  signal === undefined ? {} : { abortSignal: signal };

function regionOf(keyId: string): string {
  const region = /^arn:aws[a-z-]*:kms:([a-z0-9-]+):\d{12}:(?:key|alias)\/.+$/.exec(keyId)?.[1];
  if (region !== undefined) return region;
  throw new Failure("input.invalid", {
    message: `${JSON.stringify(keyId)} is not the ARN of a KMS key: arn:aws:kms:REGION:ACCOUNT:key/ID`,
  });
}

function present(bytes: Uint8Array | undefined, keyId: string): Uint8Array {
  if (bytes !== undefined) return bytes;
  throw new Failure("aws.failed", { message: `KMS answered without bytes for ${keyId}` });
}
