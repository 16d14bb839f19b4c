import type { S3Client } from "@aws-sdk/client-s3";
import { isFailure } from "@holdfast/shared/domain/failure";
import type { CallOptions, ObjectStore } from "@holdfast/shared/ports/object-store";
import { systemRandom } from "@holdfast/shared/ports/random";
import type { StorageReport } from "../finding.ts";
import { probeFolderName, probeObjectStore } from "../probe-object-store.ts";
import { inspectionNames, inspectS3 } from "./inspect-s3.ts";
import { describeS3Bucket } from "./s3-bucket.ts";
import { createS3ObjectStore } from "./s3-object-store.ts";

/** The bucket's settings, and then what it does, used as these settings demand. */
export async function inspectS3Storage(o: {
  readonly bucket: string;
  readonly prefix: string;
  readonly client: S3Client;
  readonly call?: CallOptions | undefined;
}): Promise<StorageReport> {
  const { call } = o;
  const folder = probeFolderName(systemRandom);
  const { findings, ...found } = await inspectS3(describeS3Bucket(o), { folder, call });
  const open = (conditional: { readonly conditionalPut?: true }): ObjectStore =>
    createS3ObjectStore({ ...o, supports: { ...found, ...conditional } });
  const store = open({});
  await removeIfAllowed(
    store,
    inspectionNames.map((name) => `${folder}${name}`),
    call,
  );
  const openUnguarded = () => open({ conditionalPut: true });
  const probed = await probeObjectStore(store, { random: systemRandom, openUnguarded, call });
  return {
    supports: { ...found, conditionalPut: probed.supports.conditionalPut },
    findings: [...findings, ...probed.findings],
  };
}

/** Whether removals are allowed is for the probe to say. */
async function removeIfAllowed(
  store: ObjectStore,
  keys: readonly string[],
  call: CallOptions | undefined,
): Promise<void> {
  try {
    await store.remove(keys, call);
  } catch (error) {
    if (!isFailure(error, "storage.refused") && !isFailure(error, "storage.locked")) throw error;
  }
}
