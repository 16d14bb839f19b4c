/** An error that the service documents; the SDK raises it under `name`. */
export class AwsError extends Error {
  readonly status: number;

  constructor(name: string, message: string, status = 400) {
    super(message);
    this.name = name;
    this.status = status;
  }
}

/** As AWS answers an operation that the service does not have; names it, so that nobody has to guess. */
export function unknownOperation(operation: string): AwsError {
  return new AwsError(
    "UnknownOperationException",
    `The local stack does not support the operation ${operation}`,
  );
}
