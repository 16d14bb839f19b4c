import { CfnOutput, Stack, type StackProps } from "aws-cdk-lib";
import type { Repository } from "aws-cdk-lib/aws-ecr";
import type { Bucket } from "aws-cdk-lib/aws-s3";
import type { Construct } from "constructs";
import { CatalogTable } from "../constructs/catalog-table.ts";
import { createMoverImages } from "../constructs/mover-images.ts";
import { createRepositoryBucket } from "../constructs/repository-bucket.ts";

/**
 * Everything that holds data. All of it is retained when the stack is deleted, and its logical ids never change: a
 * changed one would mean a new, empty resource. A test pins them.
 */
export class StorageStack extends Stack {
  readonly repositoryBucket: Bucket;
  readonly catalog: CatalogTable;
  readonly moverImages: Repository;

  constructor(scope: Construct, id: string, props: StackProps) {
    super(scope, id, { ...props, terminationProtection: true });
    this.repositoryBucket = createRepositoryBucket(this);
    this.catalog = new CatalogTable(this, "Catalog");
    this.moverImages = createMoverImages(this);
    new CfnOutput(this, "MoverImagesUri", { value: this.moverImages.repositoryUri });
  }
}
