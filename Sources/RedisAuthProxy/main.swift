print("redis-auth-proxy")
