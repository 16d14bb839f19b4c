import {
  CopyObjectCommand,
  CreateMultipartUploadCommand,
  DeleteBucketCommand,
  DeleteBucketLifecycleCommand,
  DeleteBucketPolicyCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  PutBucketAclCommand,
  PutBucketLifecycleConfigurationCommand,
  PutBucketPolicyCommand,
  PutBucketTaggingCommand,
  PutBucketVersioningCommand,
  PutObjectAclCommand,
  PutObjectCommand,
  PutObjectLegalHoldCommand,
  PutObjectLockConfigurationCommand,
  PutObjectRetentionCommand,
  PutObjectTaggingCommand,
  type S3Client,
} from "@aws-sdk/client-s3";

/**
 * What a mover needs, in the words of a bucket's policy: it creates and reads. What it creates is its own for radosgw, so that what it may not do
 * must be said; and the bucket's owner reads the objects of others only where the policy says so.
 */
export function bucketPolicy(bucket: string, users: { mover: string; owner: string }): unknown {
  const principal = (user: string) => ({ AWS: [`arn:aws:iam:::user/${user}`] });
  const objects = [`arn:aws:s3:::${bucket}/*`];
  const bucketItself = [`arn:aws:s3:::${bucket}`];
  const Principal = principal(users.mover);
  return {
    Version: "2012-10-17",
    Statement: [
      {
        Effect: "Allow",
        Principal,
        Action: ["s3:PutObject", "s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention"],
        Resource: objects,
      },
      {
        Effect: "Allow",
        Principal,
        Action: ["s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketLocation"],
        Resource: bucketItself,
      },
      {
        Effect: "Deny",
        Principal,
        Action: [
          "s3:DeleteObject",
          "s3:DeleteObjectVersion",
          "s3:PutObjectRetention",
          "s3:PutObjectLegalHold",
          "s3:BypassGovernanceRetention",
          "s3:PutObjectAcl",
          "s3:PutObjectVersionAcl",
          "s3:PutObjectTagging",
          "s3:PutObjectVersionTagging",
          "s3:DeleteObjectTagging",
          "s3:DeleteObjectVersionTagging",
        ],
        Resource: objects,
      },
      {
        Effect: "Allow",
        Principal: principal(users.owner),
        Action: ["s3:*"],
        Resource: [...objects, ...bucketItself],
      },
    ],
  };
}

type Victim = { readonly Key?: string | undefined; readonly VersionId?: string | undefined };
type Outcome = { readonly name: string; readonly denied: boolean };

/** Tries to destroy, by all means that S3 knows. What is done to objects is done to each of the victims. */
export async function attackBucket(
  client: S3Client,
  o: {
    readonly bucket: string;
    readonly victims: readonly Victim[];
    readonly otherUser: string;
  },
): Promise<readonly Outcome[]> {
  const { bucket: Bucket, victims } = o;
  const outcomes: Outcome[] = [];
  const attempt = async (name: string, work: () => Promise<unknown>): Promise<void> => {
    const denied = await work().then(
      () => false,
      () => true,
    );
    outcomes.push({ name, denied });
  };
  /** Denied means that every one of them was. */
  const each = (name: string, work: (place: VictimPlace) => Promise<unknown>) =>
    attempt(name, async () => {
      const tried = await Promise.allSettled(
        victims.map(({ Key = "", VersionId = "" }) => work({ Bucket, Key, VersionId })),
      );
      if (tried.every(({ status }) => status === "rejected")) throw new Error("all denied");
    });

  await attackVersions(client, { Bucket, victims, attempt, each });
  await attackContents(client, { Bucket, each });
  await attackSettings(client, { Bucket, attempt, otherUser: o.otherUser });
  return outcomes;
}

type VictimPlace = { readonly Bucket: string; readonly Key: string; readonly VersionId: string };
type Attempt = (name: string, work: () => Promise<unknown>) => Promise<void>;
type Each = (name: string, work: (place: VictimPlace) => Promise<unknown>) => Promise<void>;

async function attackVersions(
  client: S3Client,
  o: {
    readonly Bucket: string;
    readonly victims: readonly Victim[];
    readonly attempt: Attempt;
    readonly each: Each;
  },
): Promise<void> {
  const { Bucket, victims, attempt, each } = o;
  await each("delete", ({ Key }) => client.send(new DeleteObjectCommand({ Bucket, Key })));
  await each("delete versions", (place) => client.send(new DeleteObjectCommand(place)));
  await each("delete versions, past governance", (place) =>
    client.send(new DeleteObjectCommand({ ...place, BypassGovernanceRetention: true })),
  );
  const batch = async (Objects: { Key: string; VersionId?: string }[]): Promise<void> => {
    const { Errors: errors = [] } = await client.send(
      new DeleteObjectsCommand({ Bucket, Delete: { Objects } }),
    );
    if (errors.length === Objects.length) throw new Error("all denied");
  };
  await attempt("delete in a batch", () => batch(victims.map(({ Key = "" }) => ({ Key }))));
  await attempt("delete versions in a batch", () =>
    batch(victims.map(({ Key = "", VersionId = "" }) => ({ Key, VersionId }))),
  );
  const soon = new Date(Date.now() + 1000);
  for (const Mode of ["COMPLIANCE", "GOVERNANCE"] as const) {
    await each(`shorten the retention to ${Mode}`, (place) =>
      client.send(
        new PutObjectRetentionCommand({
          ...place,
          Retention: { Mode, RetainUntilDate: soon },
          BypassGovernanceRetention: true,
        }),
      ),
    );
  }
  await each("end legal holds", (place) =>
    client.send(new PutObjectLegalHoldCommand({ ...place, LegalHold: { Status: "OFF" } })),
  );
}

async function attackContents(
  client: S3Client,
  { Bucket, each }: { readonly Bucket: string; readonly each: Each },
): Promise<void> {
  const Body = Buffer.from("destroyed");
  await each("overwrite", ({ Key }) => client.send(new PutObjectCommand({ Bucket, Key, Body })));
  await each("overwrite by a copy", ({ Key }) =>
    client.send(
      new CopyObjectCommand({
        Bucket,
        Key,
        CopySource: `${Bucket}/${Key}`,
        MetadataDirective: "REPLACE",
      }),
    ),
  );
  await each("overwrite under a key of one's own", ({ Key }) =>
    client.send(
      new PutObjectCommand({
        Bucket,
        Key,
        Body,
        SSECustomerAlgorithm: "AES256",
        SSECustomerKey: Buffer.alloc(32, 7).toString("base64"),
      }),
    ),
  );
  await each("overwrite in parts, begun", ({ Key }) =>
    client.send(new CreateMultipartUploadCommand({ Bucket, Key })),
  );
  await each("tag for a lifecycle rule", ({ Key, VersionId }) =>
    client.send(
      new PutObjectTaggingCommand({
        Bucket,
        Key,
        VersionId,
        Tagging: { TagSet: [{ Key: "expire", Value: "yes" }] },
      }),
    ),
  );
  await each("change objects' rights", ({ Key, VersionId }) =>
    client.send(new PutObjectAclCommand({ Bucket, Key, VersionId, ACL: "public-read-write" })),
  );
}

async function attackSettings(
  client: S3Client,
  o: { readonly Bucket: string; readonly attempt: Attempt; readonly otherUser: string },
): Promise<void> {
  const { Bucket, attempt } = o;
  const all = {
    Version: "2012-10-17",
    Statement: [{ Effect: "Allow", Principal: "*", Action: "s3:*", Resource: "*" }],
  };
  await attempt("expire by lifecycle", () =>
    client.send(
      new PutBucketLifecycleConfigurationCommand({
        Bucket,
        LifecycleConfiguration: {
          Rules: [{ ID: "x", Status: "Enabled", Filter: { Prefix: "" }, Expiration: { Days: 1 } }],
        },
      }),
    ),
  );
  await attempt("remove lifecycle rules", () =>
    client.send(new DeleteBucketLifecycleCommand({ Bucket })),
  );
  await attempt("change the policy", () =>
    client.send(new PutBucketPolicyCommand({ Bucket, Policy: JSON.stringify(all) })),
  );
  await attempt("remove the policy", () => client.send(new DeleteBucketPolicyCommand({ Bucket })));
  await attempt("change the bucket's rights", () =>
    client.send(new PutBucketAclCommand({ Bucket, ACL: "public-read-write" })),
  );
  await attempt("suspend versioning", () =>
    client.send(
      new PutBucketVersioningCommand({
        Bucket,
        VersioningConfiguration: { Status: "Suspended" },
      }),
    ),
  );
  await attempt("set a default retention", () =>
    client.send(
      new PutObjectLockConfigurationCommand({
        Bucket,
        ObjectLockConfiguration: {
          ObjectLockEnabled: "Enabled",
          Rule: { DefaultRetention: { Mode: "GOVERNANCE", Days: 1 } },
        },
      }),
    ),
  );
  await attempt("tag the bucket", () =>
    client.send(
      new PutBucketTaggingCommand({ Bucket, Tagging: { TagSet: [{ Key: "a", Value: "b" }] } }),
    ),
  );
  await attempt("remove the bucket", () => client.send(new DeleteBucketCommand({ Bucket })));
}
