import type { KeyService } from "@holdfast/shared/ports/key-service";

let loaded: Promise<KeyService> | undefined;

/** AWS KMS; its client is loaded when a repository is opened with `aws:kms`, not before. */
export const keyService: KeyService = {
  encrypt: async (request, options) => await (await load()).encrypt(request, options),
  decrypt: async (request, options) => await (await load()).decrypt(request, options),
};

async function load(): Promise<KeyService> {
  loaded ??= import("@holdfast/shared/aws/key-service").then(({ createKmsKeyService }) =>
    createKmsKeyService(),
  );
  return await loaded;
}
