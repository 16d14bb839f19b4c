import { Duration, RemovalPolicy } from "aws-cdk-lib";
import { AnyPrincipal, Effect, PolicyStatement } from "aws-cdk-lib/aws-iam";
import {
  BlockPublicAccess,
  Bucket,
  BucketEncryption,
  type IBucket,
  ObjectOwnership,
} from "aws-cdk-lib/aws-s3";
import type { Construct } from "constructs";

const encrypted = {
  encryption: BucketEncryption.S3_MANAGED,
  enforceSSL: true,
  minimumTLSVersion: 1.2,
  blockPublicAccess: BlockPublicAccess.BLOCK_ALL,
  objectOwnership: ObjectOwnership.BUCKET_OWNER_ENFORCED,
  removalPolicy: RemovalPolicy.RETAIN,
} as const;

/**
 * Where repositories live. Objects are made once and never replaced: the bucket itself refuses a put that does not say
 * `If-None-Match: *`. What is removed stays for 30 days as an old version.
 *
 * Repositories are sealed with keys of their own before they come here. A KMS key on top would be a second key whose
 * loss loses everything, so S3's own encryption is used.
 */
export function createRepositoryBucket(scope: Construct): Bucket {
  const accessLogs = new Bucket(scope, "AccessLogs", {
    ...encrypted,
    lifecycleRules: [{ expiration: Duration.days(365) }],
  });
  const bucket = new Bucket(scope, "Repositories", {
    ...encrypted,
    versioned: true,
    // CDK's class and interface differ under exactOptionalPropertyTypes (an optional getter).
    serverAccessLogsBucket: accessLogs as IBucket,
    serverAccessLogsPrefix: "repositories/",
    lifecycleRules: [
      {
        noncurrentVersionExpiration: Duration.days(30),
        abortIncompleteMultipartUploadAfter: Duration.days(1),
        expiredObjectDeleteMarker: true,
      },
    ],
  });
  bucket.addToResourcePolicy(
    new PolicyStatement({
      sid: "CreateOnly",
      effect: Effect.DENY,
      principals: [new AnyPrincipal()],
      actions: ["s3:PutObject"],
      resources: [bucket.arnForObjects("*")],
      conditions: { Null: { "s3:if-none-match": "true" } },
    }),
  );
  return bucket;
}
