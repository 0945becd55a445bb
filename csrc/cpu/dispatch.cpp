namespace being::cpu {}
