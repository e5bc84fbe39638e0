# neverlapse as a part of a Terraform configuration: the packaged template as a stack, with its reader policy on a role of yours.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "template" {
  description = "What sam package wrote."
  type        = string
  default     = "packaged.yaml"
}

variable "bucket" {
  description = "Name of a bucket of yours for the template, which is longer than a request may be."
  type        = string
}

variable "alert_email" {
  description = "Address that alerts go to; it must confirm the subscription once."
  type        = string
}

variable "domains" {
  description = "Endpoints to watch, until the stack's bucket has an inventory.toml."
  type        = list(string)
  default     = []
}

variable "instance_role" {
  description = "Name of the role of instances that install certificates, if there is one."
  type        = string
  default     = null
}

data "aws_s3_bucket" "templates" {
  bucket = var.bucket
}

resource "aws_s3_object" "template" {
  bucket      = data.aws_s3_bucket.templates.id
  key         = "neverlapse/${filesha256(var.template)}.yaml"
  source      = var.template
  source_hash = filemd5(var.template)
}

resource "aws_cloudformation_stack" "neverlapse" {
  name         = "neverlapse"
  template_url = "https://${data.aws_s3_bucket.templates.bucket_regional_domain_name}/${aws_s3_object.template.key}"
  capabilities = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]

  parameters = {
    AlertEmail = var.alert_email
    Domains    = join(",", var.domains)
  }
}

resource "aws_iam_role_policy_attachment" "reader" {
  count = var.instance_role == null ? 0 : 1

  role       = var.instance_role
  policy_arn = aws_cloudformation_stack.neverlapse.outputs["ReaderPolicyArn"]
}

output "bucket" {
  description = "Put inventory.toml here."
  value       = aws_cloudformation_stack.neverlapse.outputs["BucketName"]
}
