/** Secrets and settings by name (SSM Parameter Store; secrets are SecureStrings). Values never reach logs or errors. */
export interface Parameters {
  /** Fails with `not-found`, naming the parameter. */
  getSecret(name: string): Promise<string>;
  putSecret(name: string, value: string): Promise<void>;
  remove(name: string): Promise<void>;
}
