import { RemovalPolicy } from "aws-cdk-lib";
import { Repository, TagMutability } from "aws-cdk-lib/aws-ecr";
import type { Construct } from "constructs";

const imagesKeptMax = 20;

/** Where the mover's image is pushed before the backend is deployed. A tag is never moved to another image. */
export function createMoverImages(scope: Construct): Repository {
  return new Repository(scope, "MoverImages", {
    imageScanOnPush: true,
    imageTagMutability: TagMutability.IMMUTABLE,
    lifecycleRules: [{ maxImageCount: imagesKeptMax }],
    removalPolicy: RemovalPolicy.RETAIN,
  });
}
