"""What is made of records: statistics, tables and figures."""
