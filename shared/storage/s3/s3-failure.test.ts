import { Failure } from "@holdfast/shared/domain/failure";
import { expect, test } from "vitest";
import { asS3Failure } from "./s3-failure.ts";

const context = { url: "s3://b/k", action: "read" };

// As @smithy/core and the SDK's credential chain throw them; neither is a defect of ours, nor did the store refuse anything.
test("what the SDK lacks is told with the variables that give it", () => {
  const region = asS3Failure(new Error("Region is missing"), context);
  expect(region).toBeInstanceOf(Failure);
  expect(region).toMatchObject({
    code: "input.invalid",
    message: expect.stringMatching(/s3:\/\/b\/k: no region is known; set AWS_REGION/),
  });
  const error = Object.assign(new Error("Could not load credentials from any providers"), {
    name: "CredentialsProviderError",
  });
  expect(asS3Failure(error, context)).toMatchObject({
    code: "input.invalid",
    message: expect.stringMatching(/set AWS_ACCESS_KEY_ID/),
  });
});

test("what neither the store nor the network said passes as it is", () => {
  const error = new Error("a defect");
  expect(asS3Failure(error, context)).toBe(error);
});
